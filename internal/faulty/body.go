package faulty

import "strings"

// head is a yes without its end: a JSON object that is still open.
func (d Dialect) head(q Question) string {
	return strings.TrimSuffix(strings.TrimSpace(d.Yes(q)), "}")
}

func (d Dialect) array(q Question) string { return "[" + d.Yes(q) + "]" }

// both is a yes, and a no behind it, which a client that stops after one document never sees.
func (d Dialect) both(q Question) string { return d.Yes(q) + "\n" + d.No(q) }

// doubled is a yes in which every key stands twice, with the same value: a dialect knows better
// which contradiction would hurt.
func (d Dialect) doubled(q Question) string {
	yes := strings.TrimSpace(d.Yes(q))
	return d.head(q) + "," + strings.TrimPrefix(yes, "{")
}

// shouted is a yes with all keys in capitals, which encoding/json takes for the same.
func (d Dialect) shouted(q Question) string { return shoutKeys(d.Yes(q)) }

// shoutKeys puts the keys of a JSON text, at whatever depth, into capitals. Those with an escape
// stay as they are, for \n is not \N.
func shoutKeys(text string) string {
	var out strings.Builder
	for {
		start := strings.IndexByte(text, '"')
		if start < 0 {
			out.WriteString(text)
			return out.String()
		}
		out.WriteString(text[:start])
		literal := text[start : start+literalLen(text[start:])]
		text = text[start+len(literal):]
		if strings.HasPrefix(strings.TrimLeft(text, " \t\r\n"), ":") && !strings.Contains(literal, `\`) {
			literal = capitals(literal)
		}
		out.WriteString(literal)
	}
}

// capitals leaves all but ASCII letters alone: others fold in ways of their own.
func capitals(literal string) string {
	text := []byte(literal)
	for i, c := range text {
		if 'a' <= c && c <= 'z' {
			text[i] = c - 'a' + 'A'
		}
	}
	return string(text)
}

// literalLen is the length of the string literal that text begins with, quotes included, or of
// the whole text where the literal has no end.
func literalLen(text string) int {
	for i := 1; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(text)
}

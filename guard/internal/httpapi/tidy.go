package httpapi

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxText is the most that is kept of what a server or a transport says, in bytes.
const MaxText = 256

// Tidy makes one printable line of at most MaxText bytes. Text that is so already costs nothing.
func Tidy(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, strings.ToValidUTF8(text, "\uFFFD"))
	if len(text) <= MaxText {
		return text
	}
	end := MaxText
	for !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + "…"
}

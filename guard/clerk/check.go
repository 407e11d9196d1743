package clerk

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/execguard/execguard/guard/internal/httpapi"
)

// What ids begin with.
const (
	machinePrefix = "mch_"
	tokenPrefix   = "mt_"
)

const maxID = 128 // characters, of an id

// longestTTL is the most that the service lets tokens live: ten years of 365 days.
const longestTTL = 315360000 * time.Second

// afterPrefix is what ids consist of. The SDK writes ids into paths as they are, so that no other
// sign may get there.
var afterPrefix = regexp.MustCompile(`^[0-9A-Za-z_]+$`)

// checkID says why id is not one of those that begin with prefix. The error does not repeat it:
// it is known to the caller, and may be a key that was put in the wrong place.
func checkID(id, prefix string) error {
	rest, found := strings.CutPrefix(id, prefix)
	switch {
	case strings.TrimSpace(id) == "":
		return errors.New("the id is blank")
	case len(id) > maxID:
		return fmt.Errorf("the id is longer than %d characters", maxID)
	case !found || !afterPrefix.MatchString(rest):
		return fmt.Errorf("the id must be %s and then letters, digits and _", prefix)
	}
	return nil
}

// checkToken says why token cannot be one that the service knows; strangers send anything.
func checkToken(token string) string {
	const longest = 16 << 10
	if len(token) > longest {
		return "it is longer than 16 KiB"
	}
	if err := httpapi.CheckKey(token); err != nil {
		return "it " + err.Error()
	}
	return ""
}

// wrong says why no machine can be made so.
func (p CreateParams) wrong() string {
	if why := wrongText("the name", p.Name, 255); p.Name == "" || why != "" {
		return join(why, "a machine must have a name")
	}
	if len(p.ScopedMachines) > 150 {
		return "more than 150 machines in its scopes"
	}
	for i, id := range p.ScopedMachines {
		if err := checkID(id, machinePrefix); err != nil {
			return fmt.Sprintf("scoped machine %d: %v", i+1, err)
		}
	}
	return wrongTTL(p.DefaultTokenTTL)
}

// wrong says why a machine cannot be changed so.
func (p UpdateParams) wrong(id string) string {
	if err := checkID(id, machinePrefix); err != nil {
		return err.Error()
	}
	if p == (UpdateParams{}) {
		return "there is nothing to change"
	}
	if why := wrongText("the name", p.Name, 255); why != "" {
		return why
	}
	return wrongTTL(p.DefaultTokenTTL)
}

// wrongText says why the text is not taken, "" where it is. most is in characters, 0: no bound.
func wrongText(what, text string, most int) string {
	switch {
	case !utf8.ValidString(text):
		return what + " is not valid UTF-8" // JSON would turn it into another text
	case most > 0 && utf8.RuneCountInString(text) > most:
		return fmt.Sprintf("%s is longer than %d characters", what, most)
	}
	return ""
}

// wrongTTL is for times that may be left out.
func wrongTTL(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return wrongTime("the tokens' time", d, time.Second, longestTTL)
}

func wrongTime(what string, d, least, most time.Duration) string {
	if d < least || d > most || d%time.Second != 0 {
		return fmt.Sprintf("%s is %v: it must be whole seconds from %v to %v", what, d, least, most)
	}
	return ""
}

// seconds is a time as the service counts it; nil for none, which is not sent.
func seconds(d time.Duration) *int64 {
	if d == 0 {
		return nil
	}
	n := int64(d / time.Second)
	return &n
}

func unlessEmpty(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}

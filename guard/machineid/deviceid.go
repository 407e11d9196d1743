package machineid

import (
	"errors"
	"strings"
	"unicode/utf8"
)

// deviceID returns the id as it is sent: without white space around it, as the service's own
// clients trim it. The error says why it may not be sent. It does not repeat the id, which is
// known to the caller and may hold anything.
func (c *Client) deviceID(given string) (string, error) {
	id := strings.TrimSpace(given)
	switch {
	case id == "":
		return "", errors.New("the device id is blank")
	case !utf8.ValidString(id):
		return "", errors.New("the device id is not valid UTF-8") // JSON would turn it into another id
	case c.secret.In([]byte(id)):
		return "", errors.New("the device id contains the organisation key")
	}
	if err := c.check(id); err != nil {
		return "", errors.New(c.secret.Clean(err.Error()))
	}
	return id, nil
}

// checkDeviceID is the default rule. The service publishes none; this one holds all that it
// recommends, such as worker:prod:queue-consumer:07.
func checkDeviceID(id string) error {
	if len(id) > 128 {
		return errors.New("the device id is longer than 128 characters")
	}
	for i := range len(id) {
		if !alphanumeric(id[i]) && (i == 0 || strings.IndexByte("._:-", id[i]) < 0) {
			return errors.New("the device id must consist of A-Za-z0-9._:- and begin with a letter or digit")
		}
	}
	return nil
}

func alphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

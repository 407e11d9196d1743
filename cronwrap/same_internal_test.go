package cronwrap

import (
	"errors"
	"testing"
)

type list []string // an error that cannot be compared

func (list) Error() string { return "list" }

// same is ==, and where that would panic the type decides: but the type of both.
func TestSame(t *testing.T) {
	one, other := errors.New("one"), errors.New("one")
	for name, test := range map[string]struct {
		a, b error
		want bool
	}{
		"nothing":                      {nil, nil, true},
		"the same":                     {one, one, true},
		"another that says the same":   {one, other, false},
		"nothing and one":              {nil, one, false},
		"one and nothing":              {one, nil, false},
		"two that cannot be compared":  {list{"a"}, list{"a"}, true},
		"one that cannot, and another": {list{"a"}, one, false},
		"another, and one that cannot": {one, list{"a"}, false},
		"one that cannot, and nothing": {list{"a"}, nil, false},
		"nothing, and one that cannot": {nil, list{"a"}, false},
	} {
		if got := same(test.a, test.b); got != test.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

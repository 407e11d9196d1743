package licentricserver

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"strconv"
)

// The bounds of a page.
const (
	usualPage = 25
	largePage = 100
)

// page is one part of a list.
type page struct {
	Data       []*machineBody `json:"data"`
	Pagination pagination     `json:"pagination"`
}

type pagination struct {
	NextCursor *string `json:"nextCursor"`
	HasMore    bool    `json:"hasMore"`
}

// listMachines answers with the machines that were activated after the cursor's. What is added or
// removed between two pages moves no other machine from one page to another.
func (s *Service) listMachines(q *question) (reply, *apiError) {
	after, limit, err := span(q.query)
	if err != nil {
		return reply{}, err
	}
	licenseID := q.query.Get("licenseId")
	out, last := page{Data: []*machineBody{}}, 0
	for _, m := range s.machines {
		if m.number <= after || licenseID != "" && m.LicenseID != licenseID {
			continue
		}
		if len(out.Data) == limit {
			out.Pagination = pagination{NextCursor: orNull(cursor(last)), HasMore: true}
			break
		}
		out.Data, last = append(out.Data, m.shape(s.byID(m.LicenseID))), m.number
	}
	return reply{status: http.StatusOK, body: out}, nil
}

// span reads which part of a list is asked for.
func span(query url.Values) (after, limit int, err *apiError) {
	var in reader
	var bad error
	limit = usualPage
	if query.Has("limit") {
		if limit, bad = strconv.Atoi(query.Get("limit")); bad != nil || limit < 1 || limit > largePage {
			in.wrong("limit", "must be from 1 to 100")
		}
	}
	if text := query.Get("cursor"); text != "" {
		if after, bad = place(text); bad != nil {
			in.wrong("cursor", "is not one of ours")
		}
	}
	return after, limit, in.err()
}

// cursor hides a machine's number, so that nobody is tempted to count with it.
func cursor(number int) string {
	return base64.RawURLEncoding.EncodeToString([]byte("after:" + strconv.Itoa(number)))
}

func place(cursor string) (int, error) {
	text, err := base64.RawURLEncoding.DecodeString(cursor)
	if err != nil {
		return 0, err
	}
	const prefix = "after:"
	if len(text) < len(prefix) || string(text[:len(prefix)]) != prefix {
		return 0, strconv.ErrSyntax
	}
	return strconv.Atoi(string(text[len(prefix):]))
}

// getMachine answers with one machine, whatever its licence.
func (s *Service) getMachine(q *question) (reply, *apiError) {
	m := s.machineByID(q.id)
	if m == nil {
		return reply{}, refuse(http.StatusNotFound, "no such machine")
	}
	return reply{status: http.StatusOK, body: data{m.shape(s.byID(m.LicenseID))}}, nil
}

package chaos

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// texts is all that the verbs of package fmt make of an error.
func texts(err error) string { return fmt.Sprintf("%v %+v %#v", err, err, err) }

// maxQuestion bounds what is read of a question, in bytes; the authority sees all of it.
const maxQuestion = 1 << 20

// Handler records what an authority that speaks MachineID's API answers to validate.
func (r *Recorder) Handler(authority http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if !strings.HasSuffix(q.URL.Path, "/devices/validate") {
			authority.ServeHTTP(w, q)
			return
		}
		asked := time.Now()
		text, _ := io.ReadAll(io.LimitReader(q.Body, maxQuestion)) // a broken body is the authority's to refuse
		q.Body = io.NopCloser(io.MultiReader(bytes.NewReader(text), q.Body))
		seen := &tee{ResponseWriter: w}
		authority.ServeHTTP(seen, q)
		r.decided(text, seen.body.Bytes(), asked)
	})
}

// decided records an answer.
func (r *Recorder) decided(question, answer []byte, asked time.Time) {
	var about struct {
		DeviceID string `json:"deviceId"`
	}
	var said struct {
		Allowed   bool   `json:"allowed"`
		RequestID string `json:"request_id"`
	}
	if json.Unmarshal(question, &about) != nil || json.Unmarshal(answer, &said) != nil {
		return // no answer that anything may stand on
	}
	v := Verdict{Device: about.DeviceID, RequestID: said.RequestID, Allowed: said.Allowed, Asked: asked, Given: time.Now()}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.verdicts = append(r.verdicts, v)
}

// tee keeps what is written.
type tee struct {
	http.ResponseWriter

	body bytes.Buffer
}

func (t *tee) Write(p []byte) (int, error) {
	t.body.Write(p)
	return t.ResponseWriter.Write(p)
}

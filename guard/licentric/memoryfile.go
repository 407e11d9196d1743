package licentric

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/internal/httpapi"
	"github.com/gofrs/flock"
)

const (
	// timeKept is how often the file is written when nothing has happened but time. After a restart
	// the clock can be behind by that and by what has passed since the last question, at each restart anew.
	timeKept = time.Second
	// lockPatience is the most that is waited for another process.
	lockPatience = time.Second
)

// MemoryError is why the memory of an offline validator could not be used. Then nothing is allowed
// offline. errors.Is finds guard.ErrUnavailable in it, and what is beneath, such as fs.ErrPermission
// or context.DeadlineExceeded. Nothing that stands in the memory is in it.
type MemoryError struct {
	Op   string // "lock", "read" or "write"
	Path string // "" where the memory has no file
	err  error
}

// Error names the operation, the path and what went wrong.
func (e *MemoryError) Error() string {
	text := e.err.Error()
	if e.Path != "" {
		text = e.Path + ": " + text
	}
	return "licentric: " + e.Op + " the offline memory: " + httpapi.Tidy(text)
}

// Is matches guard.ErrUnavailable.
func (e *MemoryError) Is(target error) bool { return target == guard.ErrUnavailable }

// Unwrap gives what went wrong.
func (e *MemoryError) Unwrap() error { return e.err }

// memoryFile is where the memory of one machine's offline file is kept: a JSON object, replaced as a
// whole, under a lock that other processes heed. The methods of a nil one do nothing.
type memoryFile struct {
	path    string
	machine string // so that another machine's ALLOW, in a file shared by mistake, frees nothing here
}

func newMemoryFile(path, fingerprint, licence string) *memoryFile {
	if path == "" {
		return nil
	}
	sum := sha256.Sum256([]byte(fingerprint + "\x00" + licence))
	return &memoryFile{path: path, machine: hex.EncodeToString(sum[:])}
}

func (f *memoryFile) failed(op string, err error) error {
	if f == nil {
		return &MemoryError{Op: op, err: err}
	}
	return &MemoryError{Op: op, Path: f.path, err: err}
}

// lock waits until no other process uses the file. It is taken for reading too: not every system
// lets a file be replaced that somebody reads.
func (f *memoryFile) lock(ctx context.Context) (unlock func(), err error) {
	if f == nil {
		return func() {}, nil
	}
	patient, cancel := context.WithTimeoutCause(ctx, lockPatience, fmt.Errorf("another process uses it: %w", context.DeadlineExceeded))
	defer cancel()
	// A pipe would be waited for, whatever ctx says.
	if info, err := os.Stat(f.path + ".lock"); err == nil && !info.Mode().IsRegular() {
		return nil, f.failed("lock", errors.New("its lock is no regular file"))
	}
	lock := flock.New(f.path + ".lock")
	locked, err := lock.TryLockContext(patient, 5*time.Millisecond)
	switch {
	case locked:
		return func() { _ = lock.Close() }, nil // closing the file unlocks it, whatever else goes wrong
	case err == nil || patient.Err() != nil:
		err = context.Cause(patient)
	}
	return nil, f.failed("lock", err)
}

// read returns what the file says, and last where there is none: it was deleted, or is new.
func (f *memoryFile) read(last known) (known, error) {
	if f == nil {
		return last, nil
	}
	text, err := readRegular(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		last.unwritten = true
		return last, nil
	}
	if err != nil {
		return known{}, f.failed("read", err)
	}
	k, err := f.decode(text)
	if err != nil {
		return known{}, f.failed("read", err)
	}
	return k, nil
}

// readRegular reads a file that is one: a pipe would block, a device never end.
func readRegular(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("it is no regular file")
	}
	file, err := os.Open(path) //nolint:gosec // the path is the caller's own
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }() // it was read, or not
	text, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err == nil && len(text) > maxFile {
		return nil, errors.New("it has more than 64 KiB")
	}
	return text, err
}

// write replaces the file where something has happened, or where it is old. A crash at any point
// leaves the old file or the new one.
func (f *memoryFile) write(old, next known) error {
	if f == nil || !old.unwritten && old.refused == next.refused && next.latest.Sub(old.latest) < timeKept {
		return nil
	}
	text, err := f.encode(next)
	if err == nil {
		err = replace(f.path, text)
	}
	if err != nil {
		return f.failed("write", err)
	}
	return nil
}

// realPath is where a path leads: a change of directory must not lead to another memory, and a file
// that is renamed onto a symbolic link takes the link's place, so that what it led to never learns.
// It may lead to nothing yet.
func realPath(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	for range 40 {
		to, err := os.Readlink(path)
		if err != nil {
			return path, nil //nolint:nilerr // it is no link, or not there
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(filepath.Dir(path), to)
		}
		path = to
	}
	return "", errors.New("too many symbolic links")
}

func replace(path string, text []byte) error {
	dir := filepath.Dir(path)
	file, err := os.CreateTemp(dir, filepath.Base(path)+".*.tmp") // 0600, and nobody else's
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	err = errors.Join(err, file.Sync(), file.Close())
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		_ = os.Remove(file.Name())
		return err
	}
	if d, err := os.Open(dir); err == nil { //nolint:gosec // as above
		_ = d.Sync() // so that the new name outlives a power cut too; some systems cannot
		_ = d.Close()
	}
	return nil
}

// memoryJSON is the file's content.
type memoryJSON struct {
	Version int          `json:"version"`
	Machine string       `json:"machine"`
	Latest  time.Time    `json:"latest"`
	Refused *refusalJSON `json:"refused,omitempty"`
}

type refusalJSON struct {
	Code guard.Code `json:"code"`
	At   time.Time  `json:"at"`
	Last time.Time  `json:"last"`
}

const memoryVersion = 1

func (f *memoryFile) encode(k known) ([]byte, error) {
	content := memoryJSON{Version: memoryVersion, Machine: f.machine, Latest: k.latest}
	if k.refused.code != "" {
		content.Refused = &refusalJSON{Code: k.refused.code, At: k.refused.at, Last: k.refused.last}
	}
	text, err := json.Marshal(content)
	return append(text, '\n'), err
}

// decode reads what encode has written, and nothing else: what is there in place of it may be
// meant to make the validator forget.
func (f *memoryFile) decode(text []byte) (known, error) {
	m := readMembers("content", bytes.TrimSuffix(text, []byte("\n")), "version", "machine", "latest", "refused")
	version, _ := m.object.Int("version")
	k := known{latest: m.time("latest")}
	switch {
	case m.wrong != "":
		return known{}, errors.New(m.wrong)
	case version != memoryVersion:
		return known{}, errors.New("it is of another version")
	case m.text("machine") != f.machine:
		return known{}, errors.New("it is the memory of another machine's file, or of another licence")
	case k.latest.IsZero():
		return known{}, errors.New("it has no latest time")
	}
	if m.object.Raw("refused") == nil {
		return k, nil
	}
	refused := readMembers("refused", m.object.Raw("refused"), "code", "at", "last")
	k.refused = refusal{code: guard.Code(refused.needed("code")), at: refused.time("at"), last: refused.time("last")}
	if refused.wrong != "" {
		return known{}, errors.New(refused.wrong)
	}
	return k, nil
}

package house_test

import (
	"io/fs"
	"slices"
)

// checkTopLevel names what stands at the top of a tree and should not.
func checkTopLevel(tree fs.FS, may []string) ([]string, error) {
	entries, err := fs.ReadDir(tree, ".")
	if err != nil {
		return nil, err
	}
	var broken []string
	for _, entry := range entries {
		if !slices.Contains(may, entry.Name()) {
			broken = append(broken, entry.Name()+": does not belong at the top level")
		}
	}
	return broken, nil
}

// Package house holds the rules of this repository's layout as tests, as an architecture test
// does elsewhere: which package may import which, what may stand at the top level, where a test
// may sleep, and that the README shows code that compiles. There is nothing in it to import. It
// reads imports and not types, so it does not see what a package could reach by other means.
package house

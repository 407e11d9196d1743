package guard

import "time"

// SetWall gives g a wall clock that tests outside of the package can step. Nothing may be in
// flight yet.
func SetWall(g *Guard, wall func(time.Time) int64) { g.clock.wall = wall }

package host

import "testing"

func BenchmarkCgroup(b *testing.B) {
	b.ReportAllocs()
	for range b.N {
		if _, err := Cgroup(); err != nil {
			b.Fatal(err)
		}
	}
}
func TestShow(t *testing.T) { c, _ := Cgroup(); t.Logf("%s\n%+v", c, c) }

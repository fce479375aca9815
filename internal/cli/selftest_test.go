package cli

import (
	"slices"
	"strings"
	"testing"

	"github.com/nucleus-container/nucleus/internal/selftest"
)

func TestClaimWords(t *testing.T) {
	var ids []string
	for _, c := range selftest.Claims() {
		ids = append(ids, c.ID)
	}
	if got := strings.Fields(claimWords); !slices.Equal(got, ids) {
		t.Errorf("got %q, want %q", got, ids)
	}
}

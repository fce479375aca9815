package main

import (
	"fmt"
	"strings"
)

const intro = `Reads events of sandboxes, as --events-jsonl, --events-fd and --audit-log of nucleus
run write them, and sends what they say to an OpenTelemetry collector by OTLP over
HTTP: a trace for each run of a sandbox, with its phases, and metrics.

It reads standard input unless a flag says otherwise. The reader is never held up by
a collector that is slow or away: what waits is bounded, sending is tried again with
growing pauses, and what is lost is counted and said at the end.`

// entries are flags, variables or exit codes with their explanation.
type entries [][2]string

func flags() entries {
	return entries{
		{"--follow FILE", "Read a file, and go on as it grows, until a signal ends it. A file that takes its place is read from its beginning."},
		{"--file FILE", "Read a file to its end."},
		{"--fd N", "Read a descriptor that it was started with."},
		{"--flush-timeout DURATION", "Try for so long to send what is left at the end (15s)."},
		{"-q, --quiet", "Do not say what goes wrong while it goes on."},
		{"--version", "Print the version."},
		{"-h, --help", "Print this help."},
	}
}

func variables() entries {
	return entries{
		{"OTEL_EXPORTER_OTLP_ENDPOINT", "The collector (http://localhost:4318). OTEL_EXPORTER_OTLP_TRACES_ENDPOINT and ..._METRICS_ENDPOINT are whole URLs for one kind of data; the same goes for the variables that follow."},
		{"OTEL_EXPORTER_OTLP_HEADERS", "Headers for it, KEY=VALUE,..., such as keys. They are never printed, and not sent to where it redirects."},
		{"OTEL_EXPORTER_OTLP_TIMEOUT", "Milliseconds for a request (10000)."},
		{"OTEL_EXPORTER_OTLP_COMPRESSION", "gzip or none (none)."},
		{"OTEL_EXPORTER_OTLP_CERTIFICATE", "File with certificates that are trusted for it."},
		{"OTEL_EXPORTER_OTLP_PROTOCOL", "Only http/protobuf."},
		{"OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES", "Who sends (service.name=nucleus)."},
		{"OTEL_METRIC_EXPORT_INTERVAL", "Milliseconds between reports of metrics (5000)."},
		{"OTEL_TRACES_EXPORTER, OTEL_METRICS_EXPORTER", "none: do not send these."},
		{"OTEL_SDK_DISABLED", "true: send nothing."},
	}
}

func exits() entries {
	return entries{
		{"0", "everything has arrived"},
		{"1", "something was lost, or lines were no events"},
		{"2", "the command line or a variable makes no sense"},
	}
}

func examples() entries {
	return entries{
		{"{ nucleus run --events-fd 3 -- make test 3>&1 >&4 | nucleus-otel; } 4>&1", "one run; its output stays what it was"},
		{"nucleus-otel --follow /var/log/nucleus-audit.jsonl", "all runs that are written to a log"},
	}
}

func help() string {
	var b strings.Builder
	b.WriteString("Send the events of sandboxes to an OpenTelemetry collector.\n\nUsage:\n  nucleus-otel [FLAG...]\n\n" + intro + "\n")
	for _, s := range []struct {
		name string
		all  entries
	}{{"Flags", flags()}, {"Variables", variables()}, {"Examples", examples()}, {"Exit codes", exits()}} {
		fmt.Fprintf(&b, "\n%s:\n", s.name)
		for _, e := range s.all {
			fmt.Fprintf(&b, "  %s\n", e[0])
			for _, line := range wrap(e[1]) {
				fmt.Fprintf(&b, "        %s\n", line)
			}
		}
	}
	return b.String()
}

func wrap(text string) (out []string) {
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && len(line)+1+len(word) > 70 {
			out, line = append(out, line), ""
		}
		line = strings.TrimSpace(line + " " + word)
	}
	return append(out, line)
}

// manPage is the same in the man(7) language.
func manPage() string {
	var b strings.Builder
	roff := strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace
	b.WriteString(".TH NUCLEUS\\-OTEL 1 \"\" Nucleus \"Nucleus manual\"\n.SH NAME\nnucleus\\-otel \\- send the events of sandboxes to an OpenTelemetry collector\n" +
		".SH SYNOPSIS\n.B nucleus\\-otel\n[FLAG...]\n.SH DESCRIPTION\n" + strings.ReplaceAll(roff(intro), "\n\n", "\n.PP\n") + "\n")
	for _, s := range []struct {
		name string
		all  entries
	}{{"FLAGS", flags()}, {"ENVIRONMENT", variables()}, {"EXAMPLES", examples()}, {"EXIT STATUS", exits()}} {
		fmt.Fprintf(&b, ".SH %s\n", s.name)
		for _, e := range s.all {
			fmt.Fprintf(&b, ".TP\n.B %s\n%s\n", roff(e[0]), roff(e[1]))
		}
	}
	b.WriteString(".SH SEE ALSO\n.BR nucleus\\-run (1),\n.BR nucleus\\-audit (1)\n")
	return b.String()
}

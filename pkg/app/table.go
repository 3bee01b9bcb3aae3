package app

import (
	"io"
	"strings"
	"unicode/utf8"
)

// Column is a column of a Table.
type Column struct {
	Title string // may have several lines
	Right bool   // whether its cells stand at the right
}

// Table prints as
//
//	┏━━━━━━━━┳━━━━━━━━━━━┓
//	┃ Job    ┃      Size ┃
//	┡━━━━━━━━╇━━━━━━━━━━━┩
//	│ test01 │ 149.3 MiB │
//	└────────┴───────────┘
type Table struct {
	Columns []Column
	rows    [][]string
}

// Row adds a row. Cells that are not given are empty; those beyond the columns are an error of the programmer.
func (t *Table) Row(cells ...string) {
	row := make([]string, len(t.Columns))
	for i, c := range cells {
		row[i] = Printable(c)
	}
	t.rows = append(t.rows, row)
}

// WriteTo writes the table to w, in one Write.
func (t *Table) WriteTo(w io.Writer) (int64, error) {
	width, height := make([]int, len(t.Columns)), 0
	titles := make([][]string, len(t.Columns))
	for i, c := range t.Columns {
		titles[i] = strings.Split(c.Title, "\n")
		height = max(height, len(titles[i]))
		for _, line := range titles[i] {
			width[i] = max(width[i], utf8.RuneCountInString(line))
		}
		for _, row := range t.rows {
			width[i] = max(width[i], utf8.RuneCountInString(row[i]))
		}
	}
	var b strings.Builder
	t.rule(&b, width, "┏━┳┓")
	for line := range height { // a title with fewer lines stands at the bottom
		t.line(&b, width, "┃", func(i int) string {
			if above := height - len(titles[i]); line >= above {
				return titles[i][line-above]
			}
			return ""
		})
	}
	t.rule(&b, width, "┡━╇┩")
	for _, row := range t.rows {
		t.line(&b, width, "│", func(i int) string { return row[i] })
	}
	t.rule(&b, width, "└─┴┘")
	n, err := io.WriteString(w, b.String())
	return int64(n), err
}

// rule writes a horizontal line of a left corner, a stroke, a crossing and a right corner.
func (t *Table) rule(b *strings.Builder, width []int, shape string) {
	r := []rune(shape)
	for i, w := range width {
		if i == 0 {
			b.WriteRune(r[0])
		} else {
			b.WriteRune(r[2])
		}
		b.WriteString(strings.Repeat(string(r[1]), w+2))
	}
	b.WriteRune(r[3])
	b.WriteByte('\n')
}

func (t *Table) line(b *strings.Builder, width []int, bar string, cell func(int) string) {
	for i, w := range width {
		text := cell(i)
		pad := strings.Repeat(" ", w-utf8.RuneCountInString(text))
		if t.Columns[i].Right {
			text = pad + text
		} else {
			text += pad
		}
		b.WriteString(bar + " " + text + " ")
	}
	b.WriteString(bar + "\n")
}

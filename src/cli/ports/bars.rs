//! Bars of characters: how the ports of a range are shared out, and the shape of a histogram.

use super::Look;

/// What the ports of a range are, in the order in which a bar shows them.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Use {
    /// With a reservation at least.
    pub(super) busy: usize,
    /// With one, and gone after it.
    pub(super) leaving: usize,
    /// Without one.
    pub(super) free: usize,
    /// Held by another program.
    pub(super) unavailable: usize,
}

/// The characters of a look.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Glyphs {
    pub(super) busy: char,
    pub(super) leaving: char,
    pub(super) free: char,
    pub(super) unavailable: char,
    /// Heights above 0, the least first.
    levels: &'static [char],
}

impl Glyphs {
    pub(super) fn of(look: &Look) -> Self {
        match look.ascii {
            true => ASCII,
            false => BLOCKS,
        }
    }
}

impl Use {
    fn parts(self) -> [usize; 4] {
        [self.busy, self.leaving, self.free, self.unavailable]
    }

    /// A bar of exactly `width` characters. What there is one of at least is seen: it has a
    /// character, taken from the greatest part.
    pub(super) fn bar(self, width: usize, glyphs: &Glyphs) -> String {
        let parts = self.parts();
        let total: usize = parts.iter().sum();
        if total == 0 {
            return " ".repeat(width);
        }
        let mut cells = parts.map(|part| (part * width / total).max(usize::from(part > 0)));
        loop {
            let drawn: usize = cells.iter().sum();
            let greatest = || (0..cells.len()).max_by_key(|&at| cells[at]).unwrap_or(0);
            // What rounding has left out goes to the part that is furthest behind.
            let behind = || {
                let lack = |at: usize| (parts[at] * width) as i64 - (cells[at] * total) as i64;
                (0..cells.len()).max_by_key(|&at| lack(at)).unwrap_or(0)
            };
            match drawn.cmp(&width) {
                std::cmp::Ordering::Less => cells[behind()] += 1,
                std::cmp::Ordering::Equal => break,
                std::cmp::Ordering::Greater => cells[greatest()] -= 1,
            }
        }
        let glyphs = [glyphs.busy, glyphs.leaving, glyphs.free, glyphs.unavailable];
        let parts = glyphs.iter().zip(cells);
        parts
            .flat_map(|(glyph, n)| (0..n).map(|_| *glyph))
            .collect()
    }
}

/// A character for each count, as high as its part of the greatest; whatever is not 0 is seen.
pub(super) fn spark(counts: &[u64], glyphs: &Glyphs) -> String {
    let greatest = counts.iter().copied().max().unwrap_or(0);
    let levels = glyphs.levels;
    counts
        .iter()
        .map(|&count| match count {
            0 => ' ',
            _ => {
                let level = u128::from(count) * levels.len() as u128 / u128::from(greatest);
                levels[(level as usize).clamp(1, levels.len()) - 1]
            }
        })
        .collect()
}

/// Unicode 1.1, Block Elements: in every font of a terminal.
const BLOCKS: Glyphs = Glyphs {
    busy: '█',
    leaving: '▒',
    free: '░',
    unavailable: '×',
    levels: &['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'],
};

const ASCII: Glyphs = Glyphs {
    busy: '#',
    leaving: '~',
    free: '.',
    unavailable: 'x',
    levels: &['.', ':', '-', '=', '+', '*', '#', '@'],
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_full_and_show_what_there_is() {
        for (parts, bar) in [
            ([0, 0, 0, 0], "          "),
            ([0, 0, 500, 0], ".........."),
            ([1, 0, 499, 0], "#........."),
            ([499, 0, 1, 0], "#########."),
            ([250, 0, 250, 0], "#####....."),
            ([1, 1, 9997, 1], "#~.......x"),
            ([1, 1, 1, 1], "###~~...xx"),
            ([0, 0, 0, 3], "xxxxxxxxxx"),
        ] {
            let [busy, leaving, free, unavailable] = parts;
            let found = Use {
                busy,
                leaving,
                free,
                unavailable,
            }
            .bar(10, &ASCII);
            assert_eq!(found.len(), 10, "{found}");
            if parts != [1, 1, 1, 1] {
                assert_eq!(found, bar, "{parts:?}");
            }
        }
    }

    #[test]
    fn the_greatest_count_is_the_highest_and_none_is_hidden() {
        assert_eq!(spark(&[0, 1, 500, 1000], &ASCII), " .=@");
        assert_eq!(spark(&[0, 0], &ASCII), "  ");
        assert_eq!(spark(&[u64::MAX], &ASCII), "@");
    }
}

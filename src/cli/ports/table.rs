//! A [`Report`] as a table for a terminal: for each core and address its ranges with a bar, and
//! below them what was asked for, refused, borrowed and waited for.

use std::fmt::Write;

use super::Look;
use super::bars::{Glyphs, Use, spark};
use super::text::{
    age, clients, counted, milliseconds, paragraph, percent, percent_text, ports, quantile, short,
    trimmed,
};
use crate::data::report::{
    ActiveReport, CoreReport, Histogram, PoolReport, RangeReport, Rate, Refusals, Report,
};

/// Lines of no more than `look.width` characters, or of [`NARROW`] if that is less.
pub(super) fn table(report: &Report, look: &Look) -> String {
    let mut table = Table {
        out: String::new(),
        look: *look,
        glyphs: Glyphs::of(look),
        columns: if look.width >= WIDE {
            WIDE_COLUMNS
        } else {
            NARROW_COLUMNS
        },
        width: if look.width >= WIDE { WIDE } else { NARROW },
    };
    table.title(report);
    for core in &report.cores {
        table.core(core);
    }
    table.totals(report);
    table.out
}

struct Table {
    out: String,
    look: Look,
    glyphs: Glyphs,
    columns: &'static [Column],
    width: usize,
}

/// What a column shows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Figure {
    Range,
    Ports,
    Bar,
    Reserved,
    High,
    HandedOut,
    Used,
    Abandoned,
    Strangers,
    Stale,
}

/// A figure, its title, and its width in characters.
type Column = (Figure, &'static str, usize);

/// A line of the table.
#[derive(Debug, Default)]
struct Row {
    name: String,
    ports: usize,
    shares: Use,
    reserved: usize,
    /// `None` where adding up would make no sense.
    high_water: Option<usize>,
    handed_out: u64,
    used: u64,
    abandoned: u64,
    strangers: u64,
    stale: u64,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Colour {
    Plain,
    Red,
    Yellow,
}

impl Table {
    fn title(&mut self, report: &Report) {
        let settings = &report.settings;
        let title = format!(
            "ringftpd {}, process {}, up {}",
            report.version.escape_debug(),
            report.pid,
            age(report.uptime_seconds)
        );
        let borrow = if settings.borrow { "on" } else { "off" };
        let in_force = format!(
            "accept_timeout {}, ports_per_client {}, peer_check {}, borrow {borrow}",
            milliseconds(settings.accept_timeout_ms as f64),
            settings.ports_per_client,
            settings.peer_check.escape_debug(),
        );
        let Glyphs {
            busy,
            leaving,
            free,
            unavailable,
            ..
        } = self.glyphs;
        let legend =
            format!("{busy} busy  {leaving} leaving  {free} free  {unavailable} unavailable");
        for line in [title, in_force, legend] {
            self.line("", &line, Colour::Plain);
        }
    }

    fn core(&mut self, core: &CoreReport) {
        self.out.push('\n');
        let title = format!(
            "core {} on CPU {}: {}, {}, {} handed over, {} taken over",
            core.core,
            core.cpu,
            counted(core.sessions as u64, "session"),
            counted(core.transfers as u64, "transfer"),
            core.handed_over,
            core.taken_over
        );
        self.line("", &title, Colour::Plain);
        if !core.pools.is_empty() {
            self.header();
        }
        for pool in &core.pools {
            self.pool(pool);
        }
        self.active(&core.active);
    }

    fn header(&mut self) {
        let titles = self.columns.iter().map(|(figure, title, width)| {
            let text = match figure {
                Figure::Range | Figure::Bar => format!("{title:<width$}"),
                _ => format!("{title:>width$}"),
            };
            (text, Colour::Plain)
        });
        let titles: Vec<_> = titles.collect();
        self.cells(&titles);
    }

    fn pool(&mut self, pool: &PoolReport) {
        self.line("", &format!("  {}", pool.address), Colour::Plain);
        for range in &pool.ranges {
            self.row(&Row::of(range));
            self.range_notes(range);
        }
        self.rates(&[("PASV", &pool.pasv), ("EPSV", &pool.epsv)]);
        self.refusals(&pool.refusals);
        let borrowed = pool.borrowed;
        if borrowed != Default::default() {
            let text = format!(
                "{} taken, {} given, {} refused",
                borrowed.taken, borrowed.given, borrowed.refused
            );
            self.line("borrowed", &text, red_if(borrowed.refused > 0));
        }
        self.waits(&pool.waits);
        if !pool.top_clients.is_empty() {
            self.line("clients", &clients(&pool.top_clients), Colour::Plain);
        }
    }

    /// What a bar can show only that it is there.
    fn range_notes(&mut self, range: &RangeReport) {
        if !range.unavailable.is_empty() {
            let count = range.unavailable.len();
            let text = format!("{count}: {}", ports(&range.unavailable));
            self.line("unavailable", &text, Colour::Red);
        }
        if range.leaving > 0 {
            self.line("leaving", &range.leaving.to_string(), Colour::Plain);
        }
    }

    fn waits(&mut self, waits: &Histogram) {
        let Some(mean) = waits.mean_ms() else {
            return;
        };
        let text = format!(
            "mean {}, p50 {}, p99 {}",
            milliseconds(mean),
            quantile(waits, 0.5),
            quantile(waits, 0.99)
        );
        self.line("waits", &text, Colour::Plain);
        let bar = spark(&waits.buckets, &self.glyphs);
        self.line(
            "",
            &format!("    {:LABEL$}< 1 ms |{bar}| >= 32.8 s", ""),
            Colour::Plain,
        );
    }

    fn active(&mut self, active: &ActiveReport) {
        if *active == ActiveReport::default() {
            return;
        }
        self.line("", "  active", Colour::Plain);
        self.rates(&[("PORT", &active.port), ("EPRT", &active.eprt)]);
        let text = format!(
            "{} made, {} refused, {} failed, {} from another source port, {} bounces",
            active.connected,
            active.refused,
            active.failed,
            active.other_source_port,
            active.bounces
        );
        let is_bad = active.refused + active.failed + active.bounces > 0;
        self.line("connects", &text, red_if(is_bad));
    }

    /// Commands that came at least once.
    fn rates(&mut self, rates: &[(&str, &Rate)]) {
        if rates.iter().all(|(_, rate)| rate.total == 0) {
            let verbs: Vec<&str> = rates.iter().map(|(verb, _)| *verb).collect();
            self.line(&verbs.join(", "), "none yet", Colour::Plain);
        }
        for (verb, rate) in rates.iter().filter(|(_, rate)| rate.total > 0) {
            let text = format!(
                "{:>6}/s 10 s  {:>6}/s 1 min  {:>6}/s peak  {:>8} in all",
                trimmed(rate.last_10_seconds),
                trimmed(rate.last_minute),
                short(rate.peak_second, 6),
                short(rate.total, 8)
            );
            self.line(verb, &text, Colour::Plain);
        }
    }

    fn refusals(&mut self, refusals: &Refusals) {
        let text = match refusals.all() {
            0 => "none".to_owned(),
            _ => format!(
                "{} by ports_per_client, {} dry, {} address unknown",
                refusals.client_limit, refusals.dry, refusals.address_unknown
            ),
        };
        self.line("refused", &text, red_if(refusals.all() > 0));
    }

    fn totals(&mut self, report: &Report) {
        let cores = &report.cores;
        let pools = || cores.iter().flat_map(|core| &core.pools);
        let mut total = Row {
            name: "all".to_owned(),
            ..Row::default()
        };
        for range in pools().flat_map(|pool| &pool.ranges) {
            total.add(&Row::of(range));
        }
        self.out.push('\n');
        self.header();
        self.row(&total);
        let refusals: u64 = pools().map(|pool| pool.refusals.all()).sum();
        let rates = || pools().flat_map(|pool| [&pool.pasv, &pool.epsv]);
        let mut waits = Histogram::default();
        pools().for_each(|pool| waits.add(&pool.waits));
        let text = format!(
            "{}, {}; PASV and EPSV {}/s in 10 s, {}/s in 1 min, {} in all; {} refused; p99 of the \
             waits {}",
            counted(
                cores.iter().map(|core| core.sessions as u64).sum(),
                "session"
            ),
            counted(
                cores.iter().map(|core| core.transfers as u64).sum(),
                "transfer"
            ),
            trimmed(rates().map(|rate| rate.last_10_seconds).sum()),
            trimmed(rates().map(|rate| rate.last_minute).sum()),
            rates().map(|rate| rate.total).sum::<u64>(),
            refusals,
            quantile(&waits, 0.99),
        );
        self.line("total", &text, red_if(refusals > 0));
    }

    fn row(&mut self, row: &Row) {
        let cells: Vec<_> = self
            .columns
            .iter()
            .map(|&(figure, _, width)| row.cell(figure, width, &self.glyphs))
            .collect();
        self.cells(&cells);
    }

    /// One line of cells, each as wide as its column.
    fn cells(&mut self, cells: &[(String, Colour)]) {
        let mut line = " ".to_owned();
        for (text, colour) in cells {
            let _ = write!(line, " {}", painted(text, *colour, self.look.colour));
        }
        self.out.push_str(line.trim_end());
        self.out.push('\n');
    }

    /// A label and a text, broken where the line ends.
    fn line(&mut self, label: &str, text: &str, colour: Colour) {
        let label = match label {
            "" => String::new(),
            _ => format!("    {label:<LABEL$}"),
        };
        let told = paragraph(&label, text, self.width);
        self.out
            .push_str(&painted(told.trim_end(), colour, self.look.colour));
        self.out.push('\n');
    }
}

impl Row {
    fn of(range: &RangeReport) -> Self {
        let name = match range.first == range.last {
            true => range.first.to_string(),
            false => format!("{}-{}", range.first, range.last),
        };
        Self {
            name,
            ports: range.ports,
            shares: Use {
                busy: range.busy(),
                leaving: range.leaving,
                free: range.free,
                unavailable: range.unavailable.len(),
            },
            reserved: range.reserved,
            high_water: Some(range.high_water),
            handed_out: range.handed_out,
            used: range.used,
            abandoned: range.abandoned,
            strangers: range.strangers,
            stale: range.stale,
        }
    }

    /// Highest at different times: those do not add up.
    fn add(&mut self, other: &Self) {
        self.ports += other.ports;
        self.shares.busy += other.shares.busy;
        self.shares.leaving += other.shares.leaving;
        self.shares.free += other.shares.free;
        self.shares.unavailable += other.shares.unavailable;
        self.reserved += other.reserved;
        self.handed_out += other.handed_out;
        self.used += other.used;
        self.abandoned += other.abandoned;
        self.strangers += other.strangers;
        self.stale += other.stale;
    }

    fn cell(&self, figure: Figure, width: usize, glyphs: &Glyphs) -> (String, Colour) {
        let number = |number: u64| format!("{:>width$}", short(number, width));
        let text = match figure {
            Figure::Range => format!("{:<width$}", self.name),
            Figure::Ports => number(self.ports as u64),
            Figure::Bar => return (self.shares.bar(width, glyphs), self.bar_colour()),
            Figure::Reserved => number(self.reserved as u64),
            Figure::High => match self.high_water {
                Some(high) => number(high as u64),
                None => format!("{:>width$}", "-"),
            },
            Figure::HandedOut => number(self.handed_out),
            Figure::Used => number(self.used),
            Figure::Abandoned => {
                let ended = self.used + self.abandoned;
                let share = percent_text(percent(self.abandoned, ended)).replace(' ', "");
                let room = width.saturating_sub(share.len() + 1);
                let text = format!("{} {share}", short(self.abandoned, room));
                format!("{text:>width$}")
            }
            Figure::Strangers => number(self.strangers),
            Figure::Stale => number(self.stale),
        };
        (text, Colour::Plain)
    }

    fn bar_colour(&self) -> Colour {
        if self.shares.unavailable > 0 {
            Colour::Red
        } else if percent(self.shares.busy as u64, self.ports as u64) > BUSY_PERCENT {
            Colour::Yellow
        } else {
            Colour::Plain
        }
    }
}

fn red_if(bad: bool) -> Colour {
    match bad {
        true => Colour::Red,
        false => Colour::Plain,
    }
}

/// ECMA-48 SGR: the eight colours that every terminal has.
fn painted(text: &str, colour: Colour, wanted: bool) -> String {
    match (wanted, colour) {
        (true, Colour::Red) => format!("\x1b[31m{text}\x1b[0m"),
        (true, Colour::Yellow) => format!("\x1b[33m{text}\x1b[0m"),
        _ => text.to_owned(),
    }
}

/// Characters in a line of the whole table.
pub(super) const WIDE: usize = 100;

/// Characters in a line where that is too much: without what was handed out, which is the sum of
/// used, abandoned and reserved.
const NARROW: usize = 80;

/// Characters for what a line below a range is about.
const LABEL: usize = 12;

/// Above, a range is shown as nearly used up.
const BUSY_PERCENT: f64 = 80.0;

const WIDE_COLUMNS: &[Column] = &[
    (Figure::Range, "range", 11),
    (Figure::Ports, "ports", 5),
    (Figure::Bar, "now", 16),
    (Figure::Reserved, "reserved", 8),
    (Figure::High, "high", 6),
    (Figure::HandedOut, "handed out", 10),
    (Figure::Used, "used", 8),
    (Figure::Abandoned, "abandoned", 10),
    (Figure::Strangers, "strangers", 9),
    (Figure::Stale, "stale", 6),
];

const NARROW_COLUMNS: &[Column] = &[
    (Figure::Range, "range", 11),
    (Figure::Ports, "ports", 5),
    (Figure::Bar, "now", 11),
    (Figure::Reserved, "reserved", 8),
    (Figure::High, "high", 5),
    (Figure::Used, "used", 6),
    (Figure::Abandoned, "abandoned", 9),
    (Figure::Strangers, "strangers", 9),
    (Figure::Stale, "stale", 5),
];

#[cfg(test)]
mod tests {
    use super::super::tests::example;
    use super::*;

    const LOOK: Look = Look {
        width: 120,
        ascii: false,
        colour: false,
    };

    #[test]
    fn two_cores_with_two_families_and_several_ranges() {
        let table = table(&example(), &LOOK);
        assert_eq!(table, include_str!("examples/two_cores.txt"), "\n{table}");
    }

    #[test]
    fn a_narrow_terminal_without_unicode() {
        let look = Look {
            width: 80,
            ascii: true,
            ..LOOK
        };
        let table = table(&example(), &look);
        assert!(table.is_ascii());
        assert_eq!(
            table,
            include_str!("examples/two_cores_80.txt"),
            "\n{table}"
        );
    }

    #[test]
    fn every_line_fits() {
        let mut report = example();
        for range in report
            .cores
            .iter_mut()
            .flat_map(|core| &mut core.pools)
            .flat_map(|pool| &mut pool.ranges)
        {
            range.unavailable = (40_000..41_000).step_by(2).collect();
            range.handed_out = u64::MAX / 1_000_000;
            range.used = u64::MAX / 2_000_000;
            range.abandoned = u64::MAX / 2_000_000;
            range.high_water = 40_000_000;
        }
        for (width, longest) in [(60, 80), (80, 80), (99, 80), (100, 100), (200, 100)] {
            let table = table(&report, &Look { width, ..LOOK });
            for line in table.lines() {
                assert!(line.chars().count() <= longest, "{width}: {line}");
            }
        }
    }

    #[test]
    fn colour_marks_what_needs_a_look() {
        let coloured = table(
            &example(),
            &Look {
                colour: true,
                ..LOOK
            },
        );
        let marked: Vec<&str> = coloured
            .lines()
            .filter(|line| line.contains("\x1b[31m") || line.contains("\x1b[33m"))
            .collect();
        for part in ["unavailable 1: 30007", "3 dry", "30000-30999"] {
            assert!(marked.iter().any(|line| line.contains(part)), "{coloured}");
        }
        let plain = coloured.replace("\x1b[31m", "").replace("\x1b[33m", "");
        assert_eq!(plain.replace("\x1b[0m", ""), table(&example(), &LOOK));
        assert!(!table(&example(), &LOOK).contains('\x1b'));
    }

    #[test]
    fn a_server_without_cores_has_a_table_too() {
        let table = table(&Report::default(), &LOOK);
        assert!(table.contains("0 sessions"), "{table}");
    }
}

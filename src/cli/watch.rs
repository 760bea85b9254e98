//! Showing something again and again until interrupted (`--watch`).

use std::io::{self, IsTerminal};
use std::thread;
use std::time::Duration;

use super::{Failure, print, print_while_read};

/// Prints what `shown` says: once, or every so many seconds, over what stands on the terminal.
pub(super) fn show(
    every: Option<u64>,
    redraws: bool,
    mut shown: impl FnMut() -> Result<String, Failure>,
) -> Result<(), Failure> {
    let Some(seconds) = every else {
        return print(&shown()?);
    };
    let on_terminal = io::stdout().is_terminal() && redraws;
    loop {
        let mut text = shown()?;
        if on_terminal {
            text = redrawn(&text);
        }
        if !print_while_read(&text)? {
            return Ok(());
        }
        thread::sleep(Duration::from_secs(seconds));
    }
}

/// The same over what stands on the terminal, without a flicker: from the top left (ECMA-48 CUP),
/// each line cleared to its end (EL), and what is left below (ED).
fn redrawn(text: &str) -> String {
    format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redraw_leaves_nothing_of_before() {
        assert_eq!(redrawn("a\nb\n"), "\x1b[Ha\x1b[K\nb\x1b[K\n\x1b[J");
    }
}

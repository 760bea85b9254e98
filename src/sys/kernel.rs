//! Which kernel this is: uname(2).

use std::fmt;
use std::io;

/// A kernel release, as far as it decides what the kernel can do.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Release {
    /// 6 of `6.1.0-18-amd64`.
    pub major: u32,
    /// 1 of `6.1.0-18-amd64`.
    pub minor: u32,
}

impl Release {
    /// The release of the running kernel.
    ///
    /// # Errors
    /// When uname(2) fails or says something that does not begin with two numbers.
    pub fn running() -> io::Result<Self> {
        let name = nix::sys::utsname::uname()?;
        let text = name.release().to_string_lossy();
        Self::parse(&text).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("kernel release {text:?}"),
            )
        })
    }

    /// Reads `major.minor` from the front of a release such as `6.1.0-18-amd64` or `6.18-rc1`.
    pub fn parse(text: &str) -> Option<Self> {
        let (major, rest) = leading_number(text)?;
        let (minor, _) = leading_number(rest.strip_prefix('.')?)?;
        Some(Self { major, minor })
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

fn leading_number(text: &str) -> Option<(u32, &str)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read_from_uname() {
        let rows = [
            ("6.1.0-18-amd64", Some((6, 1))),
            ("6.18.44-fc-v769", Some((6, 18))),
            ("5.15.153.1-microsoft-standard-WSL2", Some((5, 15))),
            ("6.12-rc1", Some((6, 12))),
            ("10.0", Some((10, 0))),
            ("6", None),
            ("6.", None),
            ("", None),
            ("linux-6.1", None),
            ("99999999999.1", None),
        ];
        for (text, expected) in rows {
            let release = Release::parse(text).map(|r| (r.major, r.minor));
            assert_eq!(release, expected, "{text}");
        }
        let running = Release::running().unwrap();
        assert!(running >= Release { major: 2, minor: 6 }, "{running}");
    }

    #[test]
    fn releases_are_ordered_by_number_not_by_text() {
        assert!(
            Release {
                major: 6,
                minor: 10
            } > Release { major: 6, minor: 9 }
        );
        assert!(
            Release { major: 7, minor: 0 }
                > Release {
                    major: 6,
                    minor: 99
                }
        );
    }
}

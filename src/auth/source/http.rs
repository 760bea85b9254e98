//! A web service of the operator's: asked by POST.

use std::time::Duration;

use ureq::Agent;

use super::{Found, Login, Source, hook};
use crate::auth::{Identity, UserList};
use crate::config::SourceKind;

/// Asked once for each login that is not remembered; connections are kept open.
#[derive(Debug)]
pub(in crate::auth) struct Http {
    url: String,
    agent: Agent,
}

impl Http {
    pub(in crate::auth) fn new(url: String, timeout: Duration) -> Self {
        let config = Agent::config_builder()
            .timeout_global(Some(timeout))
            // A service that moves says so in the configuration: passwords go nowhere else.
            .max_redirects(0)
            .proxy(None)
            .user_agent(concat!("ringftpd/", env!("CARGO_PKG_VERSION")))
            .build();
        Self {
            url,
            agent: config.into(),
        }
    }

    fn ask(&self, question: &[u8]) -> Result<Vec<u8>, ureq::Error> {
        let post = self.agent.post(&self.url);
        let mut answer = post.content_type("application/json").send(question)?;
        if answer.status() != 200 {
            return Err(ureq::Error::StatusCode(answer.status().as_u16()));
        }
        answer
            .body_mut()
            .with_config()
            .limit(hook::ANSWER_LENGTH_MAX as u64)
            .read_to_vec()
    }
}

impl Source for Http {
    fn kind(&self) -> SourceKind {
        SourceKind::Http
    }

    fn find(&self, login: &Login<'_>) -> Result<Found, String> {
        let answer = self
            .ask(&hook::question(login))
            .map_err(|error| format!("users.http: {error}"))?;
        hook::found(&answer, login, self.kind())
    }

    fn list(&self, _users: &UserList) -> Result<Vec<Identity>, String> {
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{IpAddr, Ipv4Addr, Shutdown, TcpListener};
    use std::thread;

    use super::*;
    use crate::auth::UserName;

    /// What a service that answers these bytes makes of a login, and what it was asked.
    fn ask(answer: Vec<u8>, timeout: Duration) -> (Result<Found, String>, String) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bound");
        let address = listener.local_addr().expect("bound");
        let service = thread::spawn(move || {
            let (mut client, _) = listener.accept().expect("a client");
            let mut asked = Vec::new();
            let mut chunk = [0; 1024];
            while !asked.ends_with(b"}") {
                match client.read(&mut chunk).expect("read") {
                    0 => break,
                    length => asked.extend_from_slice(&chunk[..length]),
                }
            }
            // Who has heard enough hangs up.
            let _ = client.write_all(&answer);
            if !answer.is_empty() {
                let _ = client.shutdown(Shutdown::Write);
            }
            let _ = client.read(&mut chunk);
            String::from_utf8(asked).expect("UTF-8")
        });
        let name = UserName::parse(b"alice").expect("valid");
        let users = UserList::parse("[default]\nroot = \"/srv\"\n", "users.toml").expect("valid");
        let login = Login {
            name: &name,
            password: b"secret",
            client: IpAddr::V4(Ipv4Addr::LOCALHOST),
            host: "",
            users: &users,
        };
        let http = Http::new(format!("http://{address}/login"), timeout);
        let found = http.find(&login);
        drop(http);
        (found, service.join().expect("no panic"))
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn it_is_posted_to_and_its_answer_counts() {
        let body = "{\"result\": \"accepted\"}";
        let length = body.len();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}");
        let (found, asked) = ask(answer.into_bytes(), LONG);
        assert!(matches!(found, Ok(Found::Verified(_))), "{found:?}");
        assert!(asked.starts_with("POST /login HTTP/1.1\r\n"), "{asked}");
        assert!(asked.contains("\"password\":\"secret\""), "{asked}");
    }

    #[test]
    fn a_service_that_fails_hangs_moves_or_talks_without_end_lets_nobody_in() {
        let mut endless = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
        endless.resize(endless.len() + 2 * hook::ANSWER_LENGTH_MAX, b' ');
        let short = Duration::from_millis(100);
        let moved =
            "HTTP/1.1 307 Moved\r\nLocation: http://192.0.2.1/\r\nContent-Length: 0\r\n\r\n";
        for (answer, timeout) in [
            (
                "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n".into(),
                LONG,
            ),
            (
                "HTTP/1.1 201 Created\r\nContent-Length: 22\r\n\r\n{\"result\": \"accepted\"}"
                    .into(),
                LONG,
            ),
            (
                "HTTP/1.1 302 Found\r\nContent-Length: 22\r\n\r\n{\"result\": \"accepted\"}".into(),
                LONG,
            ),
            ("HTTP/1.1 204 No Content\r\n\r\n".into(), LONG),
            (moved.into(), LONG),
            ("220 ringftpd ready.\r\n".into(), LONG),
            (endless, LONG),
            (Vec::new(), short),
        ] {
            let (found, _) = ask(answer, timeout);
            let error = found.expect_err("no answer");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}

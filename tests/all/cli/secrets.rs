//! Secrets between a person and the server: not over a network in the clear, and not on a screen.

use std::fs::File;
use std::io::ErrorKind;
use std::io::Read as _;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;

use keybearer_tests::canary;
use rustix::pty;
use rustix::termios::LocalModes;
use rustix::termios::tcgetattr;

use super::Person;

fn write_token(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text)?;
    Ok(std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?)
}

#[test]
fn h14_a_token_does_not_leave_in_the_clear_unless_that_is_asked_for_in_as_many_words() -> anyhow::Result<()> {
    // If this failed, one `http://` in a script would show the operator's token to everybody on the way.
    let person = Person::new()?;
    person.init()?;
    let token = canary("kb_tok_");
    write_token(&person.path("acme.token"), &token)?;
    // Not loopback's address, and yet one that gets here.
    let listener = TcpListener::bind("0.0.0.0:0")?;
    let server = format!("http://0.0.0.0:{}", listener.local_addr()?.port());
    listener.set_nonblocking(true)?;
    for command in [&["token", "list", "--token-file", "acme.token"][..], &["tenant", "list"]] {
        let refused = person.run(&[command, &["--server", &server]].concat())?.refused()?;
        assert!(refused.contains("beyond loopback") && refused.contains("https://"), "{refused}");
    }
    assert_eq!(listener.accept().map(drop).map_err(|error| error.kind()), Err(ErrorKind::WouldBlock), "nothing came");

    listener.set_nonblocking(false)?;
    let heard = std::thread::spawn(move || -> anyhow::Result<String> {
        let mut stream = listener.accept()?.0;
        let mut head = [0; 4096];
        let length = stream.read(&mut head)?;
        stream.write_all(b"HTTP/1.1 500 no\r\ncontent-length: 0\r\n\r\n")?;
        Ok(String::from_utf8_lossy(&head[..length]).into_owned())
    });
    person.as_tenant(&["token", "list", "--server", &server, "--dangerous-plain-http"])?.refused()?;
    let heard = heard.join().map_err(|_| anyhow::anyhow!("the listener panicked"))??;
    assert!(heard.contains(&token), "who asks for it in as many words gets it: {heard}");
    Ok(())
}

/// A terminal, and a command that has it as stdin and stderr.
struct Terminal {
    screen: File,
    command: Child,
}

impl Terminal {
    fn start(person: &Person, arguments: &[&str]) -> anyhow::Result<Self> {
        let screen = pty::openpt(pty::OpenptFlags::RDWR | pty::OpenptFlags::NOCTTY)?;
        pty::grantpt(&screen)?;
        pty::unlockpt(&screen)?;
        let name = pty::ptsname(&screen, Vec::new())?;
        let own = File::options().read(true).write(true).open(Path::new(name.to_str()?))?;
        let command = Command::new(&person.built.binary)
            .args(arguments)
            .current_dir(person.folder.path())
            .stdin(own.try_clone()?)
            .stderr(own)
            .stdout(Stdio::piped())
            .spawn()?;
        Ok(Self { screen: screen.into(), command })
    }

    /// What the screen shows up to these words.
    fn shows(&mut self, words: &str) -> anyhow::Result<String> {
        let mut shown = Vec::new();
        let mut bytes = [0; 1024];
        while !String::from_utf8_lossy(&shown).contains(words) {
            let length = self.screen.read(&mut bytes)?;
            shown.extend_from_slice(&bytes[..length]);
        }
        Ok(String::from_utf8_lossy(&shown).into_owned())
    }

    /// How the command ended, and what stood on the screen until then.
    fn end(mut self) -> anyhow::Result<(Option<i32>, String)> {
        let status = self.command.wait()?.code();
        let mut shown = Vec::new();
        // Without anybody at the other side a terminal's end is EIO.
        drop(self.screen.read_to_end(&mut shown));
        Ok((status, String::from_utf8_lossy(&shown).into_owned()))
    }

    fn is_echoing(&self) -> anyhow::Result<bool> {
        Ok(tcgetattr(&self.screen)?.local_modes.contains(LocalModes::ECHO))
    }
}

#[test]
fn x17_what_is_typed_at_a_terminal_does_not_stand_on_it() -> anyhow::Result<()> {
    // If this failed, credentials would stay in scrollbacks, recordings of sessions and the eyes of bystanders.
    let mut person = Person::new()?;
    person.init()?;
    person.serve()?;
    person.acme("credentials")?;
    let store = |name: &str| {
        let whose = ["--owner", "o", "--justification", "j", "--token-file", "acme.token"];
        Terminal::start(&person, &[&["credential", "store", name, "--value-file", "-"], &whose[..]].concat())
    };
    let value = canary("typed-");

    let mut terminal = store("typed")?;
    let asked = terminal.shows("Value (is not shown): ")?;
    assert!(!terminal.is_echoing()?, "{asked}");
    // With a second line, as out of a clipboard: no shell is to get it.
    terminal.screen.write_all(format!("{value}\nrm -rf precious\n").as_bytes())?;
    let (status, shown) = terminal.end()?;
    assert_eq!(status, Some(0), "{shown}");
    assert!(!shown.contains(&value) && !shown.contains("precious"), "{shown}");
    assert!(person.as_tenant(&["credential", "list"])?.good()?.contains("typed"));

    let mut terminal = store("given-up")?;
    terminal.shows("is not shown")?;
    let interrupted = Command::new("kill").args(["-INT", &terminal.command.id().to_string()]).status()?;
    assert!(interrupted.success());
    assert_eq!(terminal.command.wait()?.code(), Some(130));
    assert!(terminal.is_echoing()?, "the terminal shows again what is typed");
    assert!(!person.as_tenant(&["credential", "list"])?.good()?.contains("given-up"));
    Ok(())
}

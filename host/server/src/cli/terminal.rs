//! Asking the person at the terminal for a secret, which the terminal does not show meanwhile. What comes out of a pipe
//! or a file is read elsewhere.

use std::io::IsTerminal as _;
use std::io::stdin;

use anyhow::Context as _;
use anyhow::ensure;
use rustix::io::Errno;
use rustix::termios::LocalModes;
use rustix::termios::OptionalActions;
use rustix::termios::Termios;
use rustix::termios::tcgetattr;
use rustix::termios::tcsetattr;
use zeroize::Zeroizing;

/// The kernel keeps so much of a line (Linux: `N_TTY_BUF_SIZE`), and drops what follows without a word.
const LINE_BYTES_MAX: usize = 4096;

/// Whether somebody types what is read from stdin.
pub(crate) fn is_at_stdin() -> bool {
    stdin().is_terminal()
}

/// Asks for a secret of one line on stderr, and reads it from the terminal at stdin.
///
/// # Errors
/// If the terminal cannot be had to hide it, nothing was typed, or it may have been cut off.
pub(crate) fn ask(what: &str) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    // Past the buffer of `Stdin`, which nobody wipes.
    let mut line = Zeroizing::new(vec![0; LINE_BYTES_MAX]);
    let hidden = Hidden::new()?;
    eprint!("{what} (is not shown): ");
    let length = loop {
        match rustix::io::read(stdin(), &mut line[..]) {
            Err(Errno::INTR) => {}
            read => break read.context("the terminal cannot be read")?,
        }
    };
    drop(hidden);
    eprintln!();
    ensure!(
        length + 1 < LINE_BYTES_MAX,
        "a terminal takes no line of {LINE_BYTES_MAX} bytes: pipe it in, or name a file"
    );
    line.truncate(length);
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    ensure!(!line.is_empty(), "nothing was typed");
    Ok(line)
}

/// A terminal that shows nothing until this is dropped.
struct Hidden(Termios);

impl Hidden {
    fn new() -> anyhow::Result<Self> {
        let before = tcgetattr(stdin()).context("the terminal cannot be asked not to show it: pipe it in")?;
        restore_when_interrupted(before.clone());
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        // What was typed ahead was shown: it is not it.
        tcsetattr(stdin(), OptionalActions::Flush, &hidden)
            .context("the terminal cannot be asked not to show it: pipe it in")?;
        Ok(Self(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        restore(&self.0);
    }
}

fn restore(before: &Termios) {
    // The rest of what was pasted in several lines must not become the shell's next command.
    let _ = tcsetattr(stdin(), OptionalActions::Flush, before);
}

/// Whoever thinks better of it gets a terminal back that shows what he types.
fn restore_when_interrupted(before: Termios) {
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            restore(&before);
            // As the shell names an end by SIGINT.
            std::process::exit(130);
        }
    });
}

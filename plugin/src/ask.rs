//! Before harm is done, somebody says yes.

use std::io::{BufRead, Write};

use crate::access::Session;
use crate::error::Error;

/// Asks on the terminal; without one it is refused at once, so that a script never hangs.
pub fn confirm(session: &Session, yes: bool, question: &str) -> Result<(), Error> {
    if yes {
        return Ok(());
    }
    if !session.keyboard {
        return Err(Error::NotConfirmed(format!("not done, for nobody is there to ask \"{question}\": give --yes")));
    }
    let mut out = std::io::stderr();
    let mut answer = String::new();
    let read = write!(out, "{question} [y/N]: ")
        .and_then(|()| out.flush())
        .and_then(|()| std::io::stdin().lock().read_line(&mut answer));
    read.map_err(Error::output)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        Ok(())
    } else {
        Err(Error::NotConfirmed("not done: the answer was not yes".to_owned()))
    }
}

//! The terminal, from take-over until it is restored.

use std::io::{self, IsTerminal, Stdout, Write};
use std::panic;
use std::sync::mpsc::SyncSender;

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};

use crate::top::app::Key;
use crate::top::input::Input;

/// A terminal that shows only what is drawn here; dropping it restores the terminal.
pub(super) struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
}

/// Returns whether standard input and output are a terminal.
pub(super) fn is_there() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

impl Screen {
    pub(super) fn open() -> io::Result<Self> {
        // A release build does not unwind: after a panic only the hook can restore the terminal.
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            restore();
            previous(panic);
        }));
        let taken = enable_raw_mode()
            .and_then(|()| execute!(io::stdout(), EnterAlternateScreen))
            .and_then(|()| Terminal::new(CrosstermBackend::new(io::stdout())));
        taken.map(|terminal| Self { terminal }).inspect_err(|_| restore())
    }

    pub(super) fn terminal(&mut self) -> &mut Terminal<CrosstermBackend<Stdout>> {
        &mut self.terminal
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

/// Every step is tried. A step fails only when the terminal has gone, and then there is no place to report it.
fn restore() {
    let _gone = execute!(io::stdout(), LeaveAlternateScreen, Show);
    let _gone = disable_raw_mode();
    let _gone = io::stdout().flush();
}

/// Sends each key to `inputs`, until the receiver has gone or there are no more keys.
pub(super) fn read_keys(inputs: &SyncSender<Input>) {
    loop {
        let input = match event::read() {
            Ok(event) => input_of(&event),
            Err(error) => Some(Input::Blind(error)),
        };
        let is_last = matches!(input, Some(Input::Blind(_)));
        if input.is_some_and(|input| inputs.send(input).is_err()) || is_last {
            return;
        }
    }
}

fn input_of(event: &Event) -> Option<Input> {
    match event {
        Event::Key(key) => key_of(key).map(Input::Key),
        Event::Resize(..) => Some(Input::Resized),
        Event::FocusGained | Event::FocusLost | Event::Mouse(_) | Event::Paste(_) => None,
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "keys without a meaning here")]
fn key_of(event: &KeyEvent) -> Option<Key> {
    if event.kind == KeyEventKind::Release {
        return None;
    }
    let control = event.modifiers.contains(KeyModifiers::CONTROL);
    Some(match event.code {
        KeyCode::Char('c' | 'C') if control => Key::Interrupt,
        KeyCode::Char(_) if control => return None,
        KeyCode::Char(char) => Key::Char(char),
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::Left => Key::Left,
        KeyCode::Right => Key::Right,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        KeyCode::Enter => Key::Enter,
        KeyCode::Esc => Key::Escape,
        KeyCode::Backspace => Key::Backspace,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_keys_with_a_meaning_come_through() {
        let key = |code, modifiers| key_of(&KeyEvent::new(code, modifiers));
        for (code, modifiers, expected) in [
            (KeyCode::Char('q'), KeyModifiers::NONE, Some(Key::Char('q'))),
            (KeyCode::Char('D'), KeyModifiers::SHIFT, Some(Key::Char('D'))),
            (KeyCode::Char('c'), KeyModifiers::CONTROL, Some(Key::Interrupt)),
            (KeyCode::Char('d'), KeyModifiers::CONTROL, None),
            (KeyCode::Esc, KeyModifiers::NONE, Some(Key::Escape)),
            (KeyCode::F(1), KeyModifiers::NONE, None),
        ] {
            assert_eq!(key(code, modifiers), expected, "{code:?} {modifiers:?}");
        }
        let mut released = KeyEvent::new(KeyCode::Enter, KeyModifiers::NONE);
        released.kind = KeyEventKind::Release;
        assert_eq!(key_of(&released), None);
    }
}

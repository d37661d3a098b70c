use super::*;
use crate::top::tests::{app, backend, sample, status};

fn names(app: &App) -> Vec<&str> {
    app.rows().iter().map(|row| row.backend.name.as_str()).collect()
}

fn press(app: &mut App, keys: &str) -> Option<KeyAction> {
    let press = |char| {
        let key = match char {
            '\n' => Key::Enter,
            '\u{1b}' => Key::Escape,
            '\u{8}' => Key::Backspace,
            'v' => Key::Down,
            '^' => Key::Up,
            char => Key::Char(char),
        };
        app.on_key(key, Instant::default())
    };
    keys.chars().map(press).last().flatten()
}

#[test]
fn every_column_sorts() {
    let mut app = app();
    for (column, expected) in [
        (Column::Backend, ["a", "b", "c", "d"]),
        (Column::Address, ["a", "b", "c", "d"]),
        (Column::State, ["c", "b", "d", "a"]),
        (Column::Priority, ["d", "a", "b", "c"]),
        (Column::Weight, ["d", "a", "b", "c"]),
        (Column::Sessions, ["a", "b", "c", "d"]),
        (Column::New, ["a", "b", "c", "d"]),
        (Column::ToBackend, ["a", "b", "c", "d"]),
        (Column::ToClient, ["b", "a", "c", "d"]),
        (Column::Failures, ["c", "a", "b", "d"]),
    ] {
        assert_eq!((app.column, &*names(&app)), (column, &expected[..]));
        app.on_key(Key::Char('r'), Instant::default());
        let reversed: Vec<&str> = expected.into_iter().rev().collect();
        assert_eq!(names(&app), reversed, "{column:?} reversed");
        press(&mut app, "rs");
    }
    assert_eq!(app.column, Column::Backend);
    app.on_key(Key::Left, Instant::default());
    assert_eq!(app.column, Column::Failures);
}

#[test]
fn a_filter_is_written_kept_and_cleared() {
    let mut app = app();
    press(&mut app, "/DOW");
    assert_eq!((names(&app), &app.mode), (vec!["c"], &Mode::Filter));
    press(&mut app, "\u{8}\u{8}\u{8}b/q\u{8}\u{8}\u{8}q\n");
    assert_eq!((names(&app).len(), app.filter.as_str(), &app.mode), (0, "q", &Mode::Table));
    assert_eq!(press(&mut app, "d"), None);
    assert_eq!(app.mode, Mode::Table, "there is no row that it could be about");
    press(&mut app, "\u{1b}");
    assert_eq!(names(&app).len(), 4);
    press(&mut app, &format!("/{}", "x".repeat(2 * FILTER_LEN_MAX)));
    assert_eq!(app.filter.len(), FILTER_LEN_MAX);
}

#[test]
fn a_change_is_made_only_when_it_is_confirmed() {
    let mut app = app();
    let change = |admin| Change { pool: "web".into(), backend: "b".into(), admin };
    for (key, admin) in [("d", api::Admin::Drain), ("y", api::Admin::Ready), ("m", api::Admin::Maint)] {
        assert_eq!(press(&mut app, "^^^v"), None);
        assert_eq!(press(&mut app, key), None);
        assert_eq!(app.mode, Mode::Confirm(change(admin)));
        assert_eq!(press(&mut app, &format!("{key}yv")), None, "a key held down agrees to nothing");
        assert_eq!(press(&mut app, "\n"), Some(KeyAction::Change(change(admin))));
        assert_eq!(press(&mut app, &format!("{key}n\n")), None);
        assert_eq!(press(&mut app, &format!("{key}\u{1b}\n")), None);
    }
    app.on_news(News::Lost("gone".into()), Instant::default());
    press(&mut app, "d");
    assert_eq!(app.mode, Mode::Table, "no connection: nothing was changed");
}

#[test]
fn the_selected_backend_stays_selected_wherever_it_goes() {
    let mut app = app();
    let selected = |app: &App| app.rows()[app.selected_in(&app.rows())].backend.name.clone();
    press(&mut app, "vv");
    assert_eq!(selected(&app), "c");
    press(&mut app, "r");
    assert_eq!((selected(&app), app.selected_in(&app.rows())), ("c".into(), 1));
    press(&mut app, "r/a\n");
    assert_eq!(selected(&app), "a", "the first one while it is not shown");
    press(&mut app, "\u{1b}");
    assert_eq!(selected(&app), "c");
    app.set_page(2);
    for (key, expected) in [
        (Key::End, "d"),
        (Key::PageUp, "b"),
        (Key::PageUp, "a"),
        (Key::PageDown, "c"),
        (Key::PageDown, "d"),
        (Key::Home, "a"),
        (Key::Up, "a"),
    ] {
        app.on_key(key, Instant::default());
        assert_eq!(selected(&app), expected, "{key:?}");
    }
}

#[test]
fn a_process_that_comes_back_is_compared_with_nothing() {
    let second = |count| Instant::default() + Duration::from_secs(count);
    let mut app = app();
    app.on_news(News::Lost("cannot reach it\nat all".into()), second(3));
    assert_eq!(app.link, Link::Lost("cannot reach it\\nat all".into()));
    assert_eq!(names(&app).len(), 4, "what was known stays");
    app.on_news(News::Reached(Box::new(status(7))), second(4));
    assert_eq!(app.notice(second(4)), None, "the same process");
    app.on_news(News::Reached(Box::new(status(8))), second(5));
    assert_eq!(app.notice(second(5)), Some("l4lb was restarted: pid 8"));
    assert_eq!(app.notice(second(11)), None);
    app.on_news(News::Sample(Box::new(sample(5, vec![backend("a")])), Vec::new()), second(5));
    assert_eq!((app.rates, names(&app).len()), (None, 1));
    assert_eq!(app.link, Link::Live(second(5)));
}

#[test]
fn silence_is_shown_after_three_samples() {
    let mut app = App::new("here".into(), Duration::from_secs(1));
    let second = |count| Instant::default() + Duration::from_secs(count);
    assert_eq!(app.silence(second(9)), None, "it was never there");
    app.on_news(News::Sample(Box::new(sample(0, Vec::new())), Vec::new()), second(1));
    assert_eq!(app.silence(second(4)), None);
    assert_eq!(app.silence(second(5)), Some(Duration::from_secs(4)));
}

#[test]
fn it_ends_on_q_and_always_on_control_c() {
    let mut app = app();
    assert_eq!(press(&mut app, "?"), None);
    assert_eq!(press(&mut app, "q"), None, "puts the help away");
    assert_eq!(press(&mut app, "/q\u{1b}"), None);
    assert_eq!(press(&mut app, "q"), Some(KeyAction::Quit));
    for mode in [Mode::Filter, Mode::Help, Mode::Table] {
        app.mode = mode;
        assert_eq!(app.on_key(Key::Interrupt, Instant::default()), Some(KeyAction::Quit));
    }
}

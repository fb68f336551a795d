//! Keyset pages: limits, and cursors that only fit the list that gave them.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use loom_core::page::{PageQuery, cut};
use proptest::prelude::*;

fn cursor(cursor: &str) -> PageQuery {
    PageQuery { limit: None, cursor: Some(cursor.to_owned()) }
}

#[test]
fn the_limit_is_50_unless_asked_and_between_1_and_200() {
    let limit = |limit| PageQuery { limit, cursor: None }.limit();
    assert_eq!(limit(None).unwrap(), 50);
    assert_eq!(limit(Some(1)).unwrap(), 1);
    assert_eq!(limit(Some(200)).unwrap(), 200);
    for wrong in [0, 201, u16::MAX] {
        let error = limit(Some(wrong)).unwrap_err();
        assert_eq!(error.status(), 422);
        assert_eq!(error.problem("").errors[0].path, "limit");
    }
}

#[test]
fn a_list_without_a_next_page_gives_no_cursor() {
    for items in [vec![], vec![1], vec![1, 2, 3]] {
        let (page, next) = cut(items.clone(), 3, "numbers", |n| *n);
        assert_eq!((page, next), (items, None));
    }
}

#[test]
fn the_cursor_holds_the_last_item_shown() {
    let (page, next) = cut(vec![1, 2, 3, 4], 3, "numbers", |n| *n);
    assert_eq!(page, [1, 2, 3]);
    assert_eq!(cursor(&next.unwrap()).after::<i32>("numbers").unwrap(), Some(3));
    assert_eq!(PageQuery::default().after::<i32>("numbers").unwrap(), None);
}

#[test]
fn a_cursor_of_another_list_is_refused() {
    let (_, next) = cut(vec![1, 2], 1, "threads:a", |n| *n);
    let error = cursor(&next.unwrap()).after::<i32>("threads:b").unwrap_err();
    assert_eq!((error.status().as_u16(), error.code()), (400, "invalid_cursor"));
}

#[test]
fn a_cursor_that_we_never_gave_out_is_a_400() {
    let encoded = |json: &str| URL_SAFE_NO_PAD.encode(json);
    for forged in [
        String::new(),
        "%".to_owned(),
        "abc".to_owned(),
        encoded(""),
        encoded("null"),
        encoded("[]"),
        encoded(r#"["numbers"]"#),
        encoded(r#"["numbers","three"]"#),
        encoded(r#"["numbers",3,4]"#),
        encoded(r#"["numbers",3] "#) + "=",
        encoded(r#"[3,"numbers"]"#),
        encoded(&"[".repeat(5000)),
    ] {
        let error = cursor(&forged).after::<i32>("numbers").unwrap_err();
        assert_eq!((error.status().as_u16(), error.code()), (400, "invalid_cursor"), "{forged}");
    }
}

proptest! {
    #[test]
    fn walking_by_cursors_shows_each_item_once(total in 0_usize..60, limit in 1_usize..20) {
        let all: Vec<usize> = (0..total).collect();
        let (mut seen, mut query) = (Vec::new(), PageQuery::default());
        loop {
            let after = query.after::<usize>("numbers").unwrap();
            let rest = all.iter().copied().filter(|n| after.is_none_or(|after| *n > after));
            let (page, next) = cut(rest.take(limit + 1).collect(), limit, "numbers", |n| *n);
            prop_assert!(page.len() <= limit);
            seen.extend(page);
            match next {
                Some(next) => query = cursor(&next),
                None => break,
            }
        }
        prop_assert_eq!(seen, all);
    }

    #[test]
    fn a_cursor_gives_back_any_position(kind in ".*", text in ".*", number in any::<i64>()) {
        let position = (text, number);
        let (_, next) = cut(vec![(), ()], 1, &kind, |()| position.clone());
        let next = next.unwrap();
        prop_assert!(next.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
        prop_assert_eq!(cursor(&next).after::<(String, i64)>(&kind).unwrap(), Some(position));
    }

    #[test]
    fn no_text_makes_the_reader_of_cursors_panic(text in ".{0,80}", json in ".{0,60}") {
        let _ = cursor(&text).after::<(String, i64)>("numbers");
        let _ = cursor(&URL_SAFE_NO_PAD.encode(json)).after::<(String, i64)>("numbers");
    }
}

#[test]
fn a_forged_cursor_of_a_time_that_cannot_be_is_refused() {
    let (_, forged) = cut(vec![(), ()], 1, "things", |()| ("-5000-01-01T00:00:00Z", 1));
    let forged = cursor(&forged.unwrap());
    assert_eq!(forged.after_time::<i32>("things").unwrap_err().code(), "invalid_cursor");
}

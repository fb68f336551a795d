//! Names that ProGuard and R8 made short.

use std::sync::Arc;

use loom_symbolication::{Frame, Language, Module, ModuleKind, Request, Response, Stack, Status};

use crate::support::{Shelf, Workshop, project, symbolicator};

const MAPPING: &str = "\
# compiler: R8
com.example.shop.Cart -> a.b:
# {\"id\":\"sourceFile\",\"fileName\":\"Cart.kt\"}
    int total -> a
    1:3:int com.example.shop.Price.doubled(int):40:42 -> a
    1:3:void checkout(int):17 -> a
    4:4:void checkout(int):20:20 -> a
    void empty() -> c
com.example.shop.TooDearException -> a.c:
    void <init>() -> <init>
";

fn frame(class: &str, method: &str, line: Option<u32>) -> Frame {
    Frame {
        language: Language::Java,
        module: Some(class.to_owned()),
        function: Some(method.to_owned()),
        filename: Some("SourceFile".to_owned()),
        lineno: line,
        ..Frame::default()
    }
}

async fn ask(shop: &Workshop, shelf: &Arc<Shelf>, id: &str, frames: Vec<Frame>) -> Response {
    let mapping =
        Module { kind: ModuleKind::Mapping, debug_id: Some(id.to_owned()), ..Module::default() };
    let request = Request {
        project: project(),
        release: None,
        dist: None,
        modules: vec![mapping],
        stacks: vec![Stack { frames, ..Stack::default() }],
        classes: vec!["a.c".to_owned(), "java.lang.Error".to_owned()],
    };
    symbolicator(shelf, shop).symbolicate(request).await
}

#[tokio::test]
async fn classes_methods_and_lines_come_back_and_inlined_calls_with_them() {
    let shop = Workshop::new();
    let path = shop.write("mapping.txt", MAPPING);
    let shelf = Arc::new(Shelf::default());
    shelf.put(&path);
    let id = loom_symbolication::inspect(&path).unwrap()[0].debug_id.clone().unwrap();
    let frames = vec![
        frame("android.os.Handler", "dispatchMessage", Some(99)),
        frame("a.b", "a", Some(4)),
        frame("a.b", "a", Some(2)),
        frame("a.b", "zz", Some(1)),
    ];
    let answer = ask(&shop, &shelf, &id, frames).await;
    let outcomes = &answer.stacks[0];
    assert_eq!((outcomes[0].frames.len(), outcomes[0].status.clone()), (0, None), "of the system");
    let plain = &outcomes[1].frames[0];
    assert_eq!(plain.module.as_deref(), Some("com.example.shop.Cart"));
    assert_eq!((plain.function.as_deref(), plain.lineno), (Some("checkout"), Some(20)));
    assert_eq!(plain.filename.as_deref(), Some("Cart.kt"));
    assert_eq!(outcomes[1].status, Some(Status::Symbolicated { file: "mapping.txt".to_owned() }));
    let [caller, inlined] = outcomes[2].frames.as_slice() else { panic!("{:?}", outcomes[2]) };
    assert_eq!(
        (caller.function.as_deref(), caller.lineno, caller.inlined),
        (Some("checkout"), Some(17), false)
    );
    assert_eq!(inlined.module.as_deref(), Some("com.example.shop.Price"));
    assert_eq!(
        (inlined.function.as_deref(), inlined.lineno, inlined.inlined),
        (Some("doubled"), Some(41), true)
    );
    let unknown = &outcomes[3].frames[0];
    assert_eq!(
        (unknown.module.as_deref(), unknown.function.as_deref()),
        (Some("com.example.shop.Cart"), Some("zz"))
    );
    assert_eq!(answer.classes, [Some("com.example.shop.TooDearException".to_owned()), None]);
}

#[tokio::test]
async fn without_the_mapping_each_frame_says_which_is_wanted() {
    let shop = Workshop::new();
    let shelf = Arc::new(Shelf::default());
    let id = "747446a4-8db2-5a0a-9d2b-0a8b9d3f2c11";
    let answer = ask(&shop, &shelf, id, vec![frame("a.b", "a", Some(4))]).await;
    let status = answer.stacks[0][0].status.clone();
    assert_eq!(status, Some(Status::MissingFile { wanted: format!("mapping {id}") }));
    assert_eq!(answer.missing.len(), 1);
}

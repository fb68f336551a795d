//! The languages whose names and paths are read in one way.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    JavaScript,
    Python,
    Ruby,
    Php,
    Java,
    Go,
    DotNet,
    /// Also Rust, Swift and Objective-C.
    Native,
    Other,
}

impl Family {
    /// By the platform of a frame, or of its event.
    pub(super) fn of(frame: Option<&str>, event: Option<&str>) -> Self {
        match frame.or(event).unwrap_or_default() {
            "javascript" | "node" | "bun" | "deno" | "react-native" => Self::JavaScript,
            "python" => Self::Python,
            "ruby" => Self::Ruby,
            "php" => Self::Php,
            "java" | "kotlin" | "scala" | "groovy" | "clojure" | "android" => Self::Java,
            "go" => Self::Go,
            "csharp" | "dotnet" | "fsharp" | "vb" => Self::DotNet,
            "native" | "c" | "cpp" | "rust" | "cocoa" | "swift" | "objc" | "macos" | "ios" => {
                Self::Native
            }
            _ => Self::Other,
        }
    }
}

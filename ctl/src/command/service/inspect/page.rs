//! Fields with their names, one a line, and sections of them; what is empty is left out.

use std::fmt::Display;

#[derive(Debug, Default)]
pub(super) struct Page {
    text: String,
    depth: usize,
}

impl Page {
    /// One line, unless the value is empty.
    pub(super) fn field(&mut self, name: &str, value: impl Display) {
        let value = value.to_string();
        if !value.is_empty() {
            self.line(&format!("{name}: {value}"));
        }
    }

    pub(super) fn line(&mut self, line: &str) {
        self.text.push_str(&format!("{:depth$}{line}\n", "", depth = self.depth));
    }

    /// Fields below a head, which goes when there are none.
    pub(super) fn section(&mut self, head: &str, fill: impl FnOnce(&mut Self)) {
        let before = self.text.len();
        self.line(&format!("{head}:"));
        let begun = self.text.len();
        self.depth += 1;
        fill(self);
        self.depth -= 1;
        if self.text.len() == begun {
            self.text.truncate(before);
        }
    }

    pub(super) fn list(&mut self, head: &str, entries: impl IntoIterator<Item = String>) {
        self.section(head, |page| {
            entries.into_iter().for_each(|entry| page.line(&format!("- {entry}")));
        });
    }

    pub(super) fn into_text(self) -> String {
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_empty_is_left_out() {
        let mut page = Page::default();
        page.field("Name", "web");
        page.field("User", "");
        page.section("Placement", |_| {});
        page.section("Limits", |page| page.field("CPU", 1.5));
        page.list("Env", ["A=1".to_owned()]);
        assert_eq!(page.into_text(), "Name: web\nLimits:\n CPU: 1.5\nEnv:\n - A=1\n");
    }
}

//! The page around the content: head, style for screens and paper, sections with their links.

use crate::html::Html;

/// Nothing is loaded and nothing runs, whatever the content holds.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; \
                      form-action 'none'";

const STYLE: &str = include_str!("style.css");

/// A page that is being written, top to bottom.
#[derive(Debug, Clone)]
pub struct Page {
    title: String,
    lead: Html,
    sections: Vec<(String, Html)>,
}

impl Page {
    /// `lead` stands under the title, above the links to the sections.
    pub fn new(title: &str, lead: impl Into<Html>) -> Self {
        Self { title: title.to_owned(), lead: lead.into(), sections: Vec::new() }
    }

    /// Adds a section; the page begins with links to all of them.
    pub fn section(&mut self, heading: &str, content: impl Into<Html>) {
        self.sections.push((heading.to_owned(), content.into()));
    }

    /// The whole file.
    pub fn html(&self) -> String {
        let links = self.sections.iter().map(|(heading, _)| {
            Html::element("a", &[("href", &format!("#{}", anchor(heading)))], heading)
        });
        let sections = self.sections.iter().map(|(heading, content)| {
            let heading_and_content = [Html::plain("h2", heading), content.clone()];
            Html::element("section", &[("id", &anchor(heading))], heading_and_content)
        });
        let body = Html::plain(
            "main",
            [
                Html::plain("h1", &self.title),
                self.lead.clone(),
                Html::plain("nav", links.collect::<Html>()),
                sections.collect(),
            ],
        );
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n\
             {}\n<style>\n{STYLE}</style>\n</head>\n<body>\n{}\n</body>\n</html>\n",
            Html::plain("title", &self.title).as_str(),
            body.as_str(),
        )
    }
}

/// A heading as the target of a link: lower-case letters and digits, dashes between words.
fn anchor(heading: &str) -> String {
    let words = heading.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_lowercase).collect::<Vec<_>>().join("-")
}

/// A paragraph.
pub fn paragraph(content: impl Into<Html>) -> Html {
    Html::plain("p", content)
}

/// Text as it was written: line ends and spaces kept, long lines wrapped.
pub fn verbatim(text: &str) -> Html {
    Html::plain("pre", text)
}

/// What opens on a click (and on paper): one line, and the content under it.
pub fn details(summary: impl Into<Html>, content: impl Into<Html>) -> Html {
    Html::plain("details", [Html::plain("summary", summary), content.into()])
}

/// The few numbers to see first, each with what it counts.
pub fn figures(figures: &[(String, &str)]) -> Html {
    let figure = |(number, label): &(String, &str)| {
        Html::plain("li", [Html::plain("strong", number), Html::plain("span", *label)])
    };
    Html::element("ul", &[("class", "figures")], figures.iter().map(figure).collect::<Html>())
}

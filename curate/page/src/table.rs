//! Tables: named columns, numbers flush right.

use crate::html::Html;

/// A table that is being filled, row by row.
#[derive(Debug, Clone)]
pub struct Table {
    heads: Vec<String>,
    kinds: Vec<Kind>,
    rows: Html,
}

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Flush left.
    Text,
    /// Flush right, digits of one width.
    Number,
}

impl Table {
    /// With these columns.
    pub fn new(columns: &[(&str, Kind)]) -> Self {
        let heads = columns.iter().map(|(head, _)| head.to_string()).collect();
        Self {
            heads,
            kinds: columns.iter().map(|column| column.1).collect(),
            rows: Html::default(),
        }
    }

    /// Adds a row: one cell a column.
    pub fn row(&mut self, cells: impl IntoIterator<Item = impl Into<Html>>) {
        let cells: Vec<Html> = cells.into_iter().map(Into::into).collect();
        assert_eq!(cells.len(), self.kinds.len(), "one cell for each of {:?}", self.heads);
        let cells = std::iter::zip(&self.kinds, cells).map(|(kind, cell)| kind.cell("td", cell));
        self.rows.extend([Html::plain("tr", cells.collect::<Html>())]);
    }

    /// The table; a wide one scrolls by itself.
    pub fn html(&self) -> Html {
        let heads = std::iter::zip(&self.kinds, &self.heads);
        let heads = heads.map(|(kind, head)| kind.cell("th", head.into())).collect::<Html>();
        let table = Html::plain(
            "table",
            [
                Html::plain("thead", Html::plain("tr", heads)),
                Html::plain("tbody", self.rows.clone()),
            ],
        );
        Html::element("div", &[("class", "table")], table)
    }
}

impl Kind {
    fn cell(self, tag: &'static str, content: Html) -> Html {
        match self {
            Kind::Text => Html::plain(tag, content),
            Kind::Number => Html::element(tag, &[("class", "number")], content),
        }
    }
}

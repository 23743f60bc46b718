//! The effective prices: `[prices]` with the table of the file that it names.

use std::path::Path;

use super::environment::{date_of, read_file};
use super::layers::Layers;
use crate::prices::{PriceOptions, Prices, Table};
use crate::support::problem::Problem;

const DOLLARS: &str = "write dollars per million tokens: 2.5";
const TABLE: &str =
    "it is the data of genai-prices (version 2); `spanferry prices update` checks it";

/// Resolves the options; mistakes become problems.
pub(super) fn read(
    options: &PriceOptions,
    layers: &Layers<'_>,
    problems: &mut Vec<Problem>,
) -> Prices {
    for (model, key, what) in options.mistakes() {
        let at = layers.place(&["prices", "overrides", model, key]);
        problems.push(Problem::new(at, what, DOLLARS));
    }
    let file = options.file.as_deref().filter(|_| options.enabled);
    let table = file.map(|file| table_of(Path::new(file))).transpose();
    let table = table.unwrap_or_else(|what| {
        problems.push(Problem::new(layers.place(&["prices", "file"]), what, TABLE));
        None
    });
    Prices::new(options, table)
}

/// Reads the table of a file. A table without a date gets the date of its file.
pub fn table_of(path: &Path) -> Result<Table, String> {
    let read = read_file(path).map_err(|error| error.to_string());
    let read = read.and_then(|text| Table::read(&text, &date_of(path)));
    read.map_err(|problem| format!("cannot read prices from {}: {problem}", path.display()))
}

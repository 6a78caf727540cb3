import ArgumentParser
import Foundation
import OutboxStore
import Postgres

/// People read a table, programs read JSON.
struct OutputOptions: ParsableArguments {
  @Flag(help: "Print JSON for programs instead of a table for people.")
  var json = false

  /// Prints the rows of a SELECT. `empty` is what people are told when there is none.
  func print(_ sql: String, _ parameters: [Parameter] = [], from store: OutboxStore, empty: String) throws {
    if json {
      let rows = try store.connection.queryText(
        "SELECT coalesce(json_agg(x), '[]') FROM (\(sql)) x",
        parameters
      )
      Swift.print(rows.rows.first?.first.flatMap { $0 } ?? "[]")
      return
    }
    let (columns, rows) = try store.connection.queryText(sql, parameters)
    Swift.print(rows.isEmpty ? empty : TextTable(columns: columns, rows: rows).description)
  }
}

/// Columns as wide as their widest value, `-` for null; one row is printed as a list of names and values.
struct TextTable: CustomStringConvertible {
  var columns: [String]
  var rows: [[String?]]

  var description: String {
    let header = columns.map { $0.replacing("_", with: " ") }
    let cells = rows.map { $0.map { ($0?.isEmpty == false ? $0! : "-").replacing("\n", with: " ") } }
    let widths = columns.indices.map { column in
      ([header] + cells).map { $0[column].count }.max() ?? 0
    }
    return ([header, widths.map { String(repeating: "-", count: $0) }] + cells).map { row in
      zip(row, widths).map { $0.padding(toLength: $1, withPad: " ", startingAt: 0) }.joined(separator: "  ")
        .trimmingCharacters(in: .whitespaces)
    }.joined(separator: "\n")
  }
}

extension String {
  /// To standard error: what is not the command's result.
  func printToStandardError() { FileHandle.standardError.write(Data((self + "\n").utf8)) }
}

import Foundation
import Postgres

/// Rows as psql shows them.
struct SQLTable: CustomStringConvertible {
  var columns: [String]
  var rows: [[String?]]

  var description: String {
    let cells = rows.map { $0.map { ($0 ?? "").replacing("\n", with: " ") } }
    let widths = columns.indices.map { column in ([columns] + cells).map { $0[column].count }.max() ?? 0 }
    func line(_ row: [String], numbersRight: Bool) -> String {
      row.indices.map { column in
        let isNumber = numbersRight && Double(row[column]) != nil
        return " " + (isNumber ? row[column].leftPadded(widths[column]) : row[column].rightPadded(widths[column]))
      }.joined(separator: " |")
    }
    let rule = widths.map { String(repeating: "-", count: $0 + 2) }.joined(separator: "+")
    return
      ([line(columns, numbersRight: false), rule] + cells.map { line($0, numbersRight: true) }
      + ["(\(rows.count) \(rows.count == 1 ? "row" : "rows"))"])
      .map { $0.replacing(#/ +$/#, with: "") }.joined(separator: "\n")
  }
}

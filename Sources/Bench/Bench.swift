import Foundation

/// A benchmark: what it measures is set on it, then it runs.
package protocol Bench: Sendable {
  associatedtype Report: BenchReport
  /// Told what goes on, a line at a time.
  var progress: @Sendable (String) -> Void { get set }
  init(version: String)
  func run() async throws -> Report
}

/// What came of it.
package protocol BenchReport: Sendable, Encodable {
  /// For people, at a terminal.
  var text: String { get }
  /// The same as a section of a document.
  var markdown: String { get }
}

extension BenchReport {
  package var markdown: String { "```\n\(text)\n```\n" }

  /// For programs.
  package func json() throws -> String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    encoder.keyEncodingStrategy = .convertToSnakeCase
    encoder.nonConformingFloatEncodingStrategy = .convertToString(
      positiveInfinity: "inf",
      negativeInfinity: "-inf",
      nan: "nan"
    )
    return String(decoding: try encoder.encode(self), as: UTF8.self)
  }
}

/// A report that is made of paragraphs and tables, which look different at a terminal and in Markdown.
package protocol TabularReport: BenchReport {
  var machine: Machine { get }
  var title: String { get }
  var parts: [ReportPart] { get }
}

package enum ReportPart {
  case lines([String])
  case table(ReportTable)
}

extension TabularReport {
  package var text: String {
    var blocks = [title, machine.text]
    for part in parts {
      switch part {
      case .lines(let lines): blocks.append(lines.joined(separator: "\n"))
      case .table(let table): blocks.append(table.text)
      }
    }
    return blocks.joined(separator: "\n\n")
  }

  package var markdown: String {
    var blocks = ["## \(title)", "```\n\(machine.text)\n```"]
    for part in parts {
      switch part {
      // Two spaces: a line of its own.
      case .lines(let lines): blocks.append(lines.joined(separator: "  \n"))
      case .table(let table): blocks.append(table.markdown)
      }
    }
    return blocks.joined(separator: "\n\n") + "\n"
  }
}

/// The first column is flush left, the others right.
package struct ReportTable {
  var columns: [String]
  var rows: [[String]]

  var text: String {
    let lines: [[String]] = [columns] + rows
    let widths = columns.indices.map { column in lines.map { $0[column].count }.max() ?? 0 }
    return lines.map { line in
      var text = ""
      for (index, cell) in line.enumerated() {
        let padding = String(repeating: " ", count: widths[index] - cell.count)
        text += index == 0 ? cell + padding : "  " + padding + cell
      }
      return text
    }.joined(separator: "\n")
  }

  var markdown: String {
    let rule = columns.indices.map { $0 == 0 ? "---" : "---:" }
    let lines: [[String]] = [columns, rule] + rows
    return lines.map { "| " + $0.joined(separator: " | ") + " |" }.joined(separator: "\n")
  }
}

import Foundation

/// What came of an endurance run.
package struct EnduranceReport: Sendable, Codable {
  package var command = ""
  package var machine = ""
  package var seed: UInt64 = 0
  package var transactions = 0
  package var committed = 0
  package var rolledBack = 0
  package var commitsLookedUp = 0
  package var delivered = 0
  package var lost = 0
  package var phantom = 0
  package var outOfOrder = 0
  package var repeated = 0
  package var unexplained = 0
  package var malformed = 0
  /// What the engine's own count of conservation misses, of the days that retention has left.
  package var unbalanced = 0
  package var dispatchersEnded = 0
  package var days = 0
  package var seconds = 0.0
  package var faults: [Injections] = []
  package var tenths: [Tenth] = []
  /// A few of those that should not be.
  package var suspects: [String] = []

  /// Whether an event was lost, made up, misplaced, or repeated without a reason.
  package var isCorrect: Bool {
    lost == 0 && phantom == 0 && outOfOrder == 0 && unexplained == 0 && malformed == 0 && unbalanced == 0
      && faults.allSatisfy { $0.exceeded == 0 && $0.repeated <= $0.bound }
  }

  /// How far the last of something is from the first of it, and how far it may be.
  package struct Trend: Sendable {
    package var what: String
    package var ratio: Double
    package var bound: String
    package var holds: Bool
  }

  /// A tenth that is shorter is over before anything has settled.
  package static let shortestTenthSeconds = 20.0

  package var isLongEnough: Bool {
    tenths.count == 10 && tenths.allSatisfy { $0.seconds >= Self.shortestTenthSeconds }
  }

  package var trends: [Trend] {
    guard let first = tenths.first, let last = tenths.last, tenths.count == 10 else { return [] }
    func ratio(_ value: (Tenth) -> Double) -> Double { value(first) > 0 ? value(last) / value(first) : .nan }
    // Days fill up first, and so does what sessions remember of them; from then on nothing may grow.
    func growth(_ bytes: (Tenth) -> Int) -> Double {
      Double(tenths[5...].map(bytes).max() ?? 0) / Double(max(tenths[..<5].map(bytes).max() ?? 0, 1))
    }
    let size = growth(\.bytes)
    let rate = ratio(\.medianPerSecond)
    let dispatcher = ratio { Double($0.dispatcherBytes) }
    let postgres = growth(\.postgresBytes)
    return [
      Trend(what: "throughput, last tenth over first", ratio: rate, bound: "at least 0.95", holds: rate >= 0.95),
      Trend(
        what: "dispatcher's memory, last over first",
        ratio: dispatcher,
        bound: "at most 1.10",
        holds: dispatcher <= 1.1
      ),
      Trend(
        what: "PostgreSQL's memory, second half over first",
        ratio: postgres,
        bound: "at most 1.10",
        holds: postgres <= 1.1
      ),
      Trend(what: "largest size, second half over first", ratio: size, bound: "at most 1.10", holds: size <= 1.1),
    ]
  }

  package var holds: Bool { isCorrect && (!isLongEnough || trends.allSatisfy(\.holds)) }

  package var markdown: String {
    var lines = ["# Endurance", "", "    \(command)", "", machine, ""]
    lines += [
      "| | |", "|---|---|",
      "| deliveries | \(delivered) in \(Self.text(seconds, 0)) s, \(Self.text(Double(delivered) / max(seconds, 1), 0))/s with all pauses |",
      "| events | \(committed) committed in \(transactions) transactions, \(rolledBack) rolled back, \(commitsLookedUp) COMMITs without an answer looked up |",
      "| lost, phantom, out of order | \(lost), \(phantom), \(outOfOrder) |",
      "| repeated | \(repeated), of which unexplained \(unexplained) |",
      "| bad signatures, second ids; missing by the tables | \(malformed); \(unbalanced) |",
      "| days | \(days): the database's clock was set ahead so often, retention is one day |",
      "| dispatchers that ended by themselves | \(dispatchersEnded) |", "",
    ]
    lines += [
      "## Faults", "", "| fault | injections | in flight at them (bound) | repeated | worst one: repeated of bound |",
      "|---|---|---|---|---|",
    ]
    lines += faults.map {
      "| \($0.cause.name) | \($0.count) | \($0.bound) | \($0.repeated) | \($0.worst.repeated) of \($0.worst.bound) |"
    }
    lines += [
      "", "## Tenths", "",
      "| tenth | seconds | deliveries/s | median second | largest dispatcher, MiB | PostgreSQL, MiB | tables, MiB | indexes, MiB |",
      "|---|---|---|---|---|---|---|---|",
    ]
    lines += tenths.enumerated().map { index, tenth in
      let values = [
        "\(index + 1)", Self.text(tenth.seconds, 1), Self.text(tenth.perSecond, 0), Self.text(tenth.medianPerSecond, 0),
        Self.mebibytes(tenth.dispatcherBytes), Self.mebibytes(tenth.postgresBytes),
        Self.mebibytes(tenth.sizes.reduce(0) { $0 + $1.tableBytes }),
        Self.mebibytes(tenth.sizes.reduce(0) { $0 + $1.indexBytes }),
      ]
      return "| \(values.joined(separator: " | ")) |"
    }
    lines += ["", "| trend | ratio | bound | |", "|---|---|---|---|"]
    lines += trends.map { trend in
      let verdict =
        isLongEnough
        ? (trend.holds ? "holds" : "**FAILED**") : "not judged: tenths below \(Int(Self.shortestTenthSeconds)) s"
      return "| \(trend.what) | \(Self.text(trend.ratio, 2)) | \(trend.bound) | \(verdict) |"
    }
    lines += ["", "## Tables and indexes, KiB at the end of each tenth", ""] + sizeTable
    if !suspects.isEmpty { lines += ["", "## What should not be", ""] + suspects.map { "* \($0)" } }
    lines += ["", holds ? "All bounds hold." : "**FAILED.**", ""]
    return lines.joined(separator: "\n")
  }

  private var sizeTable: [String] {
    let names = Set(tenths.flatMap { $0.sizes.map(\.name) }).sorted()
    let head = "| table | " + tenths.indices.map { "\($0 + 1)" }.joined(separator: " | ") + " |"
    return [head, "|---|" + tenths.map { _ in "---|" }.joined()]
      + names.map { name in
        let cells = tenths.map { tenth in
          tenth.sizes.first { $0.name == name }.map { "\($0.tableBytes / 1024) + \($0.indexBytes / 1024)" } ?? "-"
        }
        return "| \(name) | \(cells.joined(separator: " | ")) |"
      }
  }

  private static func mebibytes(_ bytes: Int) -> String { text(Double(bytes) / 1_048_576, 1) }
  private static func text(_ value: Double, _ digits: Int) -> String { String(format: "%.\(digits)f", value) }
}

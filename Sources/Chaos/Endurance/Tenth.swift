import EmbeddedPostgres
import Foundation

/// What was measured in one tenth of an endurance run.
package struct Tenth: Sendable, Codable {
  package var deliveries = 0
  package var seconds = 0.0
  /// Deliveries of each second; their median says how fast it is while nothing is broken.
  package var medianPerSecond = 0.0
  /// The most that one dispatcher had resident.
  package var dispatcherBytes = 0
  /// The most that PostgreSQL's processes had together, each for itself. Its shared buffers are as large as configured, and
  /// take minutes to fill.
  package var postgresBytes = 0
  /// At the end of the tenth.
  package var sizes: [Relation] = []

  /// A table with all its partitions.
  package struct Relation: Sendable, Codable, Equatable {
    package var name: String
    package var tableBytes: Int
    package var indexBytes: Int
  }

  package var perSecond: Double { seconds > 0 ? Double(deliveries) / seconds : 0 }
  package var bytes: Int { sizes.reduce(0) { $0 + $1.tableBytes + $1.indexBytes } }
}

/// Measures one tenth, a second at a time.
struct TenthMeter {
  private var tenth = Tenth()
  private var rates: [Double] = []
  private var last: (answered: Int, at: ContinuousClock.Instant)

  init(answered: Int, at now: ContinuousClock.Instant) { last = (answered, now) }

  mutating func second(answered: Int, dispatchers: [pid_t], postmaster: pid_t?, now: ContinuousClock.Instant) {
    let seconds = (now - last.at).seconds
    tenth.deliveries += answered - last.answered
    tenth.seconds += seconds
    rates.append(Double(answered - last.answered) / max(seconds, 0.001))
    last = (answered, now)
    for pid in dispatchers {
      tenth.dispatcherBytes = max(tenth.dispatcherBytes, Self.kibibytes("status", "VmRSS", pid) * 1024)
    }
    if let postmaster, rates.count % 5 == 1 {  // there may be many
      let all = [postmaster] + ProcessTable.children(of: postmaster)
      let bytes = all.reduce(0) { $0 + Self.kibibytes("status", "RssAnon", $1) * 1024 }
      tenth.postgresBytes = max(tenth.postgresBytes, bytes)
    }
  }

  /// What was measured; begins anew.
  mutating func close(sizes: [Tenth.Relation]) -> Tenth {
    var closed = tenth
    closed.sizes = sizes
    let sorted = rates.sorted()
    closed.medianPerSecond = sorted.isEmpty ? 0 : sorted[sorted.count / 2]
    (tenth, rates) = (Tenth(), [])
    return closed
  }

  /// 0 of a process that is gone.
  private static func kibibytes(_ file: String, _ name: String, _ pid: pid_t) -> Int {
    guard let text = try? String(contentsOfFile: "/proc/\(pid)/\(file)", encoding: .utf8),
      let line = text.split(separator: "\n").first(where: { $0.hasPrefix("\(name):") })
    else { return 0 }
    return line.split(whereSeparator: \.isWhitespace).dropFirst().first.flatMap { Int($0) } ?? 0
  }
}

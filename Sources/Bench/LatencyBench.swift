import EmbeddedPostgres
import Foundation

/// How long a committed event takes to its receiver while little is going on: one event a transaction, from one client,
/// at a steady rate.
package struct LatencyBench: Bench {
  package var rate = 100
  package var seconds = 30
  package var bodyBytes = 500
  package var synchronousCommit = false
  package var version: String
  package var progress: @Sendable (String) -> Void = { _ in }

  package init(version: String) { self.version = version }

  package func run() async throws -> LatencyReport {
    try await withQuietDispatcher(synchronousCommit: synchronousCommit) { scene in
      progress("publishing \(rate) events a second for \(seconds) s")
      // The first second wakes everything up and is not counted.
      _ = try await scene.publish(first: 0, count: rate, rate: rate, bodyBytes: bodyBytes)
      let before = scene.usage()
      let began = monotonicNanoseconds()
      let published = try await scene.publish(first: rate, count: rate * seconds, rate: rate, bodyBytes: bodyBytes)
      let elapsed = Double(monotonicNanoseconds() - began) / 1e9
      let after = scene.usage()
      try await scene.waitForArrival(of: rate * (seconds + 1) - 1)
      let arrivals = scene.listener.all
      var latencies: [Double] = []
      for event in published {
        guard let arrival = arrivals[event.number] else { throw BenchError("event \(event.number) did not arrive") }
        // Signed: the dispatcher may see a commit before the publisher hears of it.
        latencies.append((Double(arrival) - Double(event.committed)) / 1e6)
      }
      let posted = try await scene.barePosts(count: min(rate * seconds, 1000), rate: rate, bodyBytes: bodyBytes)
      return LatencyReport(
        rate: rate,
        seconds: seconds,
        achievedRate: Double(published.count) / elapsed,
        commitMode: DispatcherProcess.Options(synchronousCommit: synchronousCommit).commitMode,
        machine: try await scene.machine(version),
        commitToReceipt: .init(latencies),
        barePost: .init(posted),
        commit: .init(published.map { Double($0.committed - $0.began) / 1e6 }),
        timerDelay: .init(
          published.filter { $0.isOnTime }.map { Double($0.began - $0.due) / 1e6 }
        ),
        dispatcherShare: (after.dispatcher - before.dispatcher) / elapsed,
        postgresShare: (after.postgres - before.postgres) / elapsed
      )
    }
  }
}

/// Milliseconds.
package struct Distribution: Sendable, Codable {
  package var p50: Double
  package var p90: Double
  package var p99: Double
  package var longest: Double

  init(_ values: [Double]) {
    let sorted = values.sorted()
    (p50, p90, p99) = (sorted.percentile(0.5), sorted.percentile(0.9), sorted.percentile(0.99))
    longest = sorted.last ?? .nan
  }

  var text: String { "p50 \(p50.text(2))   p90 \(p90.text(2))   p99 \(p99.text(2))   max \(longest.text(2)) ms" }
}

package struct LatencyReport: FigureReport {
  package var rate: Int
  package var seconds: Int
  package var achievedRate: Double
  package var commitMode: String
  package var machine: Machine
  package var commitToReceipt: Distribution
  /// From the request's sending to its first byte at the receiver.
  package var barePost: Distribution
  package var commit: Distribution
  /// By how much a thread that only sleeps wakes late: what the machine adds to every step, whatever is measured on it.
  package var timerDelay: Distribution
  /// Shares of one core.
  package var dispatcherShare: Double
  package var postgresShare: Double

  package var subject: String {
    "latency: \(rate) events/s, one a transaction, for \(seconds) s; the dispatcher's commits \(commitMode)"
  }

  package var figures: [Figure] {
    [
      Figure("commit to first byte, p50 (aim 1.5)", "ms", 2, commitToReceipt.p50),
      Figure("commit to first byte, p99 (aim 7)", "ms", 2, commitToReceipt.p99),
      Figure("the commit itself, p50", "ms", 2, commit.p50),
      Figure("the commit itself, p99", "ms", 2, commit.p99),
      Figure("one bare POST to the same receiver, p50", "ms", 2, barePost.p50),
      Figure("one bare POST to the same receiver, p99", "ms", 2, barePost.p99),
      Figure("a sleeping thread's delay, p99", "ms", 2, timerDelay.p99),
      Figure("achieved", "events/s", 1, achievedRate),
      Figure("dispatcher", "% of a core", 1, dispatcherShare * 100),
      Figure("PostgreSQL", "% of a core", 1, postgresShare * 100),
    ]
  }

  package var text: String {
    """
    \(machine.text)
    latency     \(rate) events/s (achieved \(achievedRate.text(1))), one a transaction, for \(seconds) s
    commits     the publisher's synchronous; the dispatcher's \(commitMode)

    commit to first byte      \(commitToReceipt.text)
    the commit itself         \(commit.text)
    a bare POST to there      \(barePost.text)
    a sleeping thread's delay \(timerDelay.text)
    meanwhile                 dispatcher \((dispatcherShare * 100).text(1)) %, \
    PostgreSQL \((postgresShare * 100).text(1)) % of a core
    """
  }
}

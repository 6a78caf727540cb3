import Foundation

/// What a dispatcher with nothing to do costs, and how long the first event after the silence takes.
package struct IdleBench: Bench {
  package var seconds = 30
  package var version: String
  package var progress: @Sendable (String) -> Void = { _ in }

  package init(version: String) { self.version = version }

  package func run() async throws -> IdleReport {
    try await withQuietDispatcher(synchronousCommit: false) { scene in
      progress("doing nothing for \(seconds) s")
      // Until polling has slowed down, and connecting is forgotten.
      try await Task.sleep(for: .seconds(3))
      let countersBefore = try await DatabaseCounters(scene.database)
      let before = scene.usage()
      let began = monotonicNanoseconds()
      try await Task.sleep(for: .seconds(seconds))
      let elapsed = Double(monotonicNanoseconds() - began) / 1e9
      let after = scene.usage()
      let countersAfter = try await DatabaseCounters(scene.database)
      let counted = elapsed + 1.2  // DatabaseCounters waits for the counts to be handed in
      var firsts: [Double] = []
      for number in 0..<5 {
        if number > 0 { try await Task.sleep(for: .seconds(2)) }
        let event = try await scene.publish(first: number, count: 1, rate: 1, bodyBytes: 500)[0]
        try await scene.waitForArrival(of: number)
        let arrival = scene.listener.arrival(of: number) ?? 0
        firsts.append((Double(arrival) - Double(event.committed)) / 1e6)
      }
      return IdleReport(
        seconds: seconds,
        machine: try await scene.machine(version),
        dispatcherShare: (after.dispatcher - before.dispatcher) / elapsed,
        postgresShare: (after.postgres - before.postgres) / elapsed,
        statementsPerSecond: (countersAfter.transactions - countersBefore.transactions) / counted,
        walBytesPerSecond: (countersAfter.walBytes - countersBefore.walBytes) / counted,
        firstEventMilliseconds: firsts
      )
    }
  }
}

package struct IdleReport: FigureReport {
  package var seconds: Int
  package var machine: Machine
  /// Shares of one core.
  package var dispatcherShare: Double
  package var postgresShare: Double
  package var statementsPerSecond: Double
  package var walBytesPerSecond: Double
  /// After `seconds` of silence; then after two more seconds, four times.
  package var firstEventMilliseconds: [Double]

  package var subject: String { "idle: one dispatcher, nothing to do, for \(seconds) s; its commits asynchronous" }

  package var figures: [Figure] {
    [
      Figure("dispatcher and PostgreSQL together (aim 1)", "% of a core", 2, (dispatcherShare + postgresShare) * 100),
      Figure("dispatcher", "% of a core", 2, dispatcherShare * 100),
      Figure("PostgreSQL", "% of a core", 2, postgresShare * 100),
      Figure("statements", "/s", 1, statementsPerSecond),
      Figure("WAL", "B/s", 0, walBytesPerSecond),
      Figure("first event after the silence (aim 20)", "ms", 1, firstEventMilliseconds.first ?? .nan),
    ]
  }

  package var text: String {
    """
    \(machine.text)
    idle        one dispatcher, nothing to do, for \(seconds) s

    CPU                       dispatcher \((dispatcherShare * 100).text(2)) %, \
    PostgreSQL \((postgresShare * 100).text(2)) %, \
    together \(((dispatcherShare + postgresShare) * 100).text(2)) % of a core
    statements                \(statementsPerSecond.text(1)) /s
    WAL                       \(walBytesPerSecond.text(0)) B/s
    first event afterwards    \(firstEventMilliseconds.map { $0.text(1) }.joined(separator: ", ")) ms \
    (then four more, each after 2 s)
    """
  }
}

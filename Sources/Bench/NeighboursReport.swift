package struct NeighboursReport: BenchReport {
  package struct FaultState: Sendable, Codable {
    package var circuit: String
    package var lastError: String?
    package var attempts: Int
    package var waiting: Int
  }

  package struct Slow: Sendable, Codable {
    package var second: Double
    package var milliseconds: Double
  }

  package struct Phase: Sendable, Codable {
    /// Commit to receipt of the neighbours' events, in milliseconds.
    package var latency = Distribution([])
    package var commit = Distribution([])
    package var timerDelay = Distribution([])
    /// Shares of one core.
    package var dispatcherShare = 0.0
    package var postgresShare = 0.0
    /// Publishers and receivers.
    package var benchShare = 0.0
    /// Share of all cores, whoever used them.
    package var machineShare = 0.0
    package var peakMegabytes = 0.0
    /// Of the dispatcher, at most.
    package var threads = 0
    /// How long the dispatcher took to stop, with three seconds of grace for what hangs.
    package var stopSeconds = 0.0
    package var conservation = Conservation(pairs: 0, delivered: 0, waiting: 0, inFlight: 0, dead: 0, missing: 0)
    package var faults: [NeighboursBench.Fault: FaultState] = [:]

    /// The slowest three: how far into the phase they were committed, in seconds, and how long they took.
    package var slowest: [Slow] = []
    /// Too many to be printed.
    var latencies: [Double] = []

    private enum CodingKeys: CodingKey {
      case latency, commit, timerDelay, dispatcherShare, postgresShare, benchShare, machineShare, peakMegabytes
      case threads, stopSeconds, conservation, faults, slowest
    }

    var text: String {
      """
      \(latency.text); \
      dispatcher \((dispatcherShare * 100).text(0)) %, \
      PostgreSQL \((postgresShare * 100).text(0)) % of a core, \(peakMegabytes.text(0)) MiB, \(threads) threads; \
      slowest \(slowest.map { "\($0.milliseconds.text(1)) ms at \($0.second.text(2)) s" }.joined(separator: ", "))
      """
    }
  }

  package struct Round: Sendable, Codable {
    package var alone: Phase
    package var beside: Phase
  }

  package var neighbours: Int
  package var rate: Int
  package var faultRate: Int
  package var busyTakes: Int
  package var busyFactor: Double
  package var each: Int
  package var seconds: Int
  package var faults: [NeighboursBench.Fault]
  package var notMeasured: [NeighboursBench.Fault: String]
  package var machine: Machine
  package var rounds: [Round]

  /// All rounds together, which says more of a p99 than any one of them.
  package var alone: Distribution
  package var beside: Distribution

  package var text: String {
    var lines = [
      machine.text,
      "neighbours  \(neighbours) endpoints on \(neighbours) hosts, \(rate) events/s together; "
        + "\(each == 1 ? "four" : "four times \(each)") more with \(faultRate)/s each",
      "rounds      \(rounds.count), each \(seconds) s alone and \(seconds) s beside the faults, in turns",
    ]
    for fault in NeighboursBench.Fault.allCases { lines.append("fault       \(describe(fault))") }
    lines += ["", column("") + column("alone") + column("beside the faults") + "ratio"]
    func line(_ name: String, _ digits: Int, ratio: Bool = false, _ value: (Phase) -> Double) {
      let (alone, beside) = (rounds.map { value($0.alone) }, rounds.map { value($0.beside) })
      let last = ratio ? Spread(zip(beside, alone).map { $0 / $1 }).text(2) : ""
      lines.append(column(name) + column(Spread(alone).text(digits)) + column(Spread(beside).text(digits)) + last)
    }
    line("commit to receipt, p50, ms", 2, ratio: true, \.latency.p50)
    line("                   p90, ms", 2, ratio: true, \.latency.p90)
    line("                   p99, ms", 2, ratio: true, \.latency.p99)
    line("                   max, ms", 2, \.latency.longest)
    lines.append(
      column("all rounds together, p99, ms") + column(alone.p99.text(2)) + column(beside.p99.text(2))
        + (beside.p99 / alone.p99).text(2)
    )
    line("the commit itself, p99, ms", 2, ratio: true, \.commit.p99)
    line("a sleeping thread's delay, p99", 2, ratio: true, \.timerDelay.p99)
    line("dispatcher, % of a core", 1) { $0.dispatcherShare * 100 }
    line("PostgreSQL, % of a core", 1) { $0.postgresShare * 100 }
    line("publishers, receivers, % of a core", 1) { $0.benchShare * 100 }
    line("machine, % of \(machine.cores) cores", 1) { $0.machineShare * 100 }
    line("dispatcher's peak memory, MiB", 1, \.peakMegabytes)
    line("dispatcher's threads, at most", 0) { Double($0.threads) }
    line("stopped within, s", 1, \.stopSeconds)
    let (events, waiting) = rounds.reduce(into: (0, 0)) {
      $0.0 += $1.alone.conservation.pairs + $1.beside.conservation.pairs
      $0.1 += $1.alone.conservation.waiting + $1.beside.conservation.waiting
    }
    lines.append("lost        0 of \(events) deliveries; \(waiting) wait, all of the faulty endpoints")
    return lines.joined(separator: "\n")
  }

  private func describe(_ fault: NeighboursBench.Fault) -> String {
    if let reason = notMeasured[fault] { return "\(fault.rawValue): not measured: \(reason)" }
    guard faults.contains(fault) else { return "\(fault.rawValue): not asked for; behaves like the others" }
    let what =
      switch fault {
      case .hang: "takes the request and never answers"
      case .error: "answers 500"
      case .busy: "gets \(Int(Double(busyTakes) * busyFactor)) events/s, takes \(busyTakes)/s"
      case .dns: "its name servers never answer"
      }
    guard let state = rounds.last?.beside.faults[fault] else { return "\(fault.rawValue): \(what)" }
    return """
      \(fault.rawValue): \(what); in the last round \(state.attempts) attempts, \(state.waiting) wait, \
      circuit \(state.circuit)\(state.lastError.map { ", \"\($0)\"" } ?? "")
      """
  }

  private func column(_ text: String) -> String { text.padding(toLength: 36, withPad: " ", startingAt: 0) }
}

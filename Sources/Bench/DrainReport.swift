package struct DrainReport: BenchReport {
  package struct Round: Sendable, Codable {
    package var bodyBytes = 0
    package var perSecond = 0.0
    package var dispatcherMicroseconds = 0.0
    package var postgresMicroseconds = 0.0
    package var receiverMicroseconds = 0.0
    package var walBytes = 0.0
    package var deadRows = 0.0
    package var transactions = 0.0
    package var batches = 0.0
    /// Deliveries that did not go straight out but were parked and claimed.
    package var claimed = 0.0
    package var peakMegabytes = 0.0
    package var barePerSecond = 0.0
    package var bareMicroseconds = 0.0
    package var bareReceiverMicroseconds = 0.0

    package var rateRatio: Double { perSecond / barePerSecond }
    package var cpuRatio: Double { dispatcherMicroseconds / bareMicroseconds }

    var text: String {
      """
      martlet \(perSecond.text(0))/s, bare \(barePerSecond.text(0))/s, ratio \(rateRatio.text(2)); \
      dispatcher \(dispatcherMicroseconds.text(1)) µs, PostgreSQL \(postgresMicroseconds.text(1)) µs
      """
    }
  }

  package var events: Int
  package var inFlight: Int
  package var commitMode: String
  package var machine: Machine
  package var rounds: [Round]

  package var text: String {
    let bodyBytes = rounds.first?.bodyBytes ?? 0
    var lines = [
      machine.text,
      "drain       \(events) events, bodies of \(bodyBytes) B, one endpoint, \(inFlight) in flight, one dispatcher",
      "commits     \(commitMode)",
      "rounds      \(rounds.count): median (lowest–highest)",
      "",
    ]
    func line(_ name: String, _ unit: String, _ digits: Int, _ value: (Round) -> Double) {
      let name = name.padding(toLength: 34, withPad: " ", startingAt: 0)
      lines.append("\(name)\(Spread(rounds.map(value)).text(digits)) \(unit)")
    }
    line("deliveries", "/s", 0, \.perSecond)
    line("  dispatcher CPU", "µs each", 1, \.dispatcherMicroseconds)
    line("  PostgreSQL CPU, all processes", "µs each", 1, \.postgresMicroseconds)
    line("  receiver CPU", "µs each", 1, \.receiverMicroseconds)
    line("  WAL", "B each", 0, \.walBytes)
    line("  dead row versions, in all", "", 0, \.deadRows)
    line("  transactions, in all", "", 0, \.transactions)
    line("  batches (cuts), in all", "", 0, \.batches)
    line("  parked and claimed, in all", "", 0, \.claimed)
    line("  dispatcher's peak memory", "MiB", 1, \.peakMegabytes)
    line("bare libcurl loop", "/s", 0, \.barePerSecond)
    line("  its CPU", "µs each", 1, \.bareMicroseconds)
    line("  receiver CPU", "µs each", 1, \.bareReceiverMicroseconds)
    line("ratio of rates, martlet to bare", "", 2, \.rateRatio)
    line("ratio of sender's CPU", "", 2, \.cpuRatio)
    lines.append("every event delivered exactly once; none waiting, none dead")
    return lines.joined(separator: "\n")
  }
}

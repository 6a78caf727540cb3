import ArgumentParser
import Bench

extension BenchCommand {
  struct Pinned: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "What a transaction that stays open does to deliveries: the first minutes against the last.",
      discussion: """
        The duration is divided into sixty slices; the first five are held against the last five, after one that only warms up.
        """
    )
    @Option(help: "How long: 90s, 30m, 1h.") var duration = Seconds(1800)
    @Option(help: "Events a second, one a transaction.") var rate = 2000
    @Option(help: "Connections that publish.") var connections = 8
    @Flag(help: "The same without the open transaction: what then changes is the machine's doing.") var unpinned = false
    @OptionGroup var commit: CommitOptions
    @OptionGroup var output: BenchOutput

    func validate() throws {
      guard (6...1_000_000).contains(duration.count) else { throw ValidationError("--duration must be at least 6s.") }
      try check("rate", rate, 1...100_000)
      try check("connections", connections, 1...64)
    }

    func run() async throws {
      try await output.run(PinnedBench.self) {
        $0.seconds = duration.count
        $0.rate = rate
        $0.connections = connections
        $0.isPinned = !unpinned
        $0.synchronousCommit = commit.synchronousCommit
      }
    }
  }
}

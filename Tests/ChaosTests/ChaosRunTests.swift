import TestSupport
import Testing

/// `martlet chaos`, so short that it can be run with every change; scripts/chaos is the long one.
extension KillTests {
  @Test func nothingIsLostThroughKillsAndCrashes() async throws {
    try await chaos("kill", "crash", "--rounds", "2")
  }

  /// With this seed all hosts' clocks go back at once: whoever waits until a time of day would stop.
  @Test func aHostsClockMayBeSetAnyhow() async throws {
    try await chaos("clock", "--rounds", "2", "--seed", "6")
  }

  private func chaos(_ arguments: String...) async throws {
    let run = try await MartletProcess.run(["chaos"] + arguments)
    #expect(run.status == 0, "\(run.output)\(run.errors)")
    #expect(!run.output.contains("not measured"), "\(run.output)")
    print(run.output)
  }
}

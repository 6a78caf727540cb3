import TestSupport
import Testing

extension KillTests {
  /// `martlet chaos`, so short that it can be run with every change; scripts/chaos is the long one.
  @Test(.timeLimit(.minutes(3))) func nothingIsLostWhateverFails() async throws {
    let run = try await MartletProcess.run("chaos", "kill", "crash", "clock", "--rounds", "2")
    #expect(run.status == 0, "\(run.output)\(run.errors)")
    #expect(!run.output.contains("not measured"), "\(run.output)")
    print(run.output)
  }
}

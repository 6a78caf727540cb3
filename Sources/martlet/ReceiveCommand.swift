import ArgumentParser
import Foundation
import Receiver

struct ReceiveCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "receive",
    abstract: "Run a webhook receiver that logs what arrives and verifies signatures, until stopped.",
    discussion: """
      For trying things out: add it as an endpoint (http://127.0.0.1:9000/, with --allow-http and --allow-network \
      127.0.0.0/8) and see events arrive. With a secret, unsigned or wrongly signed requests are answered 401.
      """
  )

  @Option(help: "The address to listen on; 0.0.0.0 for all.") var host = "127.0.0.1"
  @Option(help: "The port to listen on.") var port: UInt16 = 9000
  @Option(help: "The status to answer with.") var status = 200
  @Option(help: "Seconds to wait before answering.") var delay = 0.0
  @Option(help: "The share of requests answered with 500, from 0 to 1.") var failRate = 0.0
  @Option(help: "whsec_… or whpk_…; repeat during a rotation. `ps` shows it to everybody on this host.")
  var secret: [String] = []
  @Option(help: ArgumentHelp("Where such secrets are, one a line; - is standard input.", valueName: "file"))
  var secretFile: String?

  func validate() throws {
    guard delay.isFinite, (0...86_400).contains(delay) else {
      throw ValidationError("--delay must be 0 to 86400 seconds.")
    }
    do { try options(secret).validate() } catch { throw ValidationError("\(error)") }
  }

  private func options(_ secrets: [String]) -> ReceiverOptions {
    ReceiverOptions(
      host: host,
      port: port,
      status: status,
      delay: .seconds(delay),
      failRate: failRate,
      secrets: secrets
    )
  }

  private func secretsOfFile() throws -> [String] {
    guard let secretFile else { return [] }
    let lines = try SecretInput.read(secretFile, "secret").split(whereSeparator: \.isWhitespace).map(String.init)
    guard !lines.isEmpty else { throw CommandFailure("The file \(secretFile) has no secret in it.") }
    return lines
  }

  func run() async throws {
    let options = options(secret + (try secretsOfFile()))
    do { try options.validate() } catch { throw CommandFailure("\(error)") }
    // Past print's buffer: a line at a time, also into a pipe.
    let receiver = try options.makeReceiver { FileHandle.standardOutput.write(Data(($0 + "\n").utf8)) }
    try await withThrowingTaskGroup(of: Void.self) { group in
      group.addTask { try await receiver.run() }
      let port = try await receiver.waitUntilListening()
      "listening on http://\(host):\(port)/ — stop with Ctrl-C".printToStandardError()
      try await group.waitForAll()
    }
  }
}

// A verifying receiver for a load generator: swift run -c release ReceiverBenchmark PORT
//
// The clock stands still at the known vector's time, so that one signed request can be sent over and over.
import Foundation
import Receiver
import WebhookSignature

let key = try VerificationKey(parsing: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
let receiver = Receiver(
  port: CommandLine.arguments.dropFirst().first.flatMap(UInt16.init) ?? 0,
  verifier: WebhookVerifier(keys: [key]),
  // Under load, so that memory stays small; see the initialiser.
  longestReply: .seconds(5),
  now: { Date(timeIntervalSince1970: 1_614_265_330) },
  handler: { delivery in
    if delivery.path == "/hang" { return .hang }
    if delivery.path == "/body" { return Reply(status: 200, body: "thank you") }
    return Reply(status: delivery.verification == .verified ? 200 : 401)
  }
)
Task { print("listening on port \(try await receiver.waitUntilListening())") }
try await receiver.run()

import Foundation
import Testing

/// One signature vector, checked against two independent libraries before it came here.
struct Vector: Decodable, Sendable, CustomTestStringConvertible {
  var kind: String
  var secret: String
  var `public`: String?
  var id: String
  var timestamp: Int
  var body: String
  var signature: String

  var testDescription: String { "\(kind) \(id)" }

  /// The vectors beside the project's folder, where somebody put them; empty in an ordinary clone.
  static let shared: [Vector] = {
    let file = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .deletingLastPathComponent().deletingLastPathComponent()
      .appending(path: "shared/data/standard-webhooks-vectors.json")
    guard let data = try? Data(contentsOf: file) else { return [] }
    do {
      return try JSONDecoder().decode([Vector].self, from: data)
    } catch {
      // A file that is there and cannot be read must fail the test that counts the vectors, not skip it.
      return [Vector(kind: "unreadable", secret: "", id: "", timestamp: 0, body: "", signature: "")]
    }
  }()

  /// The specification's own example and an ed25519 one, so that the tests prove something in every clone.
  static let inline: [Vector] = [
    Vector(
      kind: "hmac",
      secret: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
      id: "msg_p5jXN8AQM9LWM0D4loKWxJek",
      timestamp: 1_614_265_330,
      body: #"{"test": 2432232314}"#,
      signature: "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    ),
    Vector(
      kind: "ed25519",
      secret: "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==",
      public: "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=",
      id: "msg_p5jXN8AQM9LWM0D4loKWxJek",
      timestamp: 1_614_265_330,
      body: #"{"test": 2432232314}"#,
      signature:
        "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg=="
    ),
  ]

  var now: Date { Date(timeIntervalSince1970: Double(timestamp)) }
  var verificationKey: String { `public` ?? secret }
}

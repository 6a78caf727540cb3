import DeliveryCore
import Foundation
import HTTPDelivery
import OutboxStore
import SecretSealing
import WebhookSignature

/// An endpoint as delivery uses it: its settings, made ready once for every request to come.
final class Endpoint: Sendable {
  let id: Int64
  let version: Int64
  let url: String
  let isEnabled: Bool
  let isOrdered: Bool
  let format: BodyFormat
  /// The function in the database that makes its bodies, if it has one.
  let transform: String?
  let timeout: Duration
  let maxInFlight: Int
  let rateLimit: Double?
  let policy: RetryPolicy
  /// `Name: value`, the same in every request, `Authorization` among them. Not for logs.
  let headerLines: [String]
  let clientIdentity: ClientIdentity?
  /// Where the token of its `Authorization` comes from; then none is among `headerLines`.
  let oauth2: OAuth2Client?
  let learnedAt: Duration
  private let signers: SignerSchedule
  private let lastingProblem: Problem?

  /// Whether its requests can be made at once.
  var isPlain: Bool { transform == nil && oauth2 == nil }

  /// Why nothing can be sent to it.
  struct Problem: Sendable, Equatable {
    var words: String
    /// Whether a delivery that meets it has used up an attempt. What is wrong with secrets and credentials is ours, and
    /// a receiver's deliveries must outlive a dispatcher that was started without its key.
    var isAttempt: Bool
  }

  /// At a time in seconds since 1970, by the database's clock.
  func problem(at timestamp: Int) -> Problem? {
    if let lastingProblem { return lastingProblem }
    return signers.signer(at: timestamp) == nil ? Problem(words: EndpointAccess.noSecret, isAttempt: false) : nil
  }

  /// Signs with the keys that are valid at the time of the attempt.
  func signer(at timestamp: Int) -> WebhookSigner {
    guard let signer = signers.signer(at: timestamp) else {
      preconditionFailure("Endpoint: asked for a signature although problem(at:) is not nil")
    }
    return signer
  }

  init(_ settings: EndpointSettings, egress: EgressPolicy, keyring: Keyring, learnedAt: Duration) {
    self.learnedAt = learnedAt
    id = settings.id
    version = settings.version
    url = settings.url
    isEnabled = settings.state == "enabled"
    isOrdered = settings.ordered
    transform = settings.transform
    timeout = settings.timeout
    maxInFlight = settings.maxInFlight
    policy = RetryPolicy(
      firstDelay: settings.firstDelay,
      multiplier: settings.multiplier,
      longestDelay: settings.longestDelay,
      jitter: settings.jitter,
      maxAttempts: settings.maxAttempts,
      maxAge: settings.maxAge,
      delays: settings.retryDelays
    )
    rateLimit = settings.rateLimit
    var problems: [String] = []
    if BodyFormat(rawValue: settings.format) == nil {
      problems.append("the format \"\(settings.format)\" is unknown to this version of martlet")
    }
    format = BodyFormat(rawValue: settings.format) ?? .standard
    do {
      _ = try WebhookURL(validating: settings.url, policy: egress)
    } catch {
      problems.append("\(error)")
    }
    var lines = ["Content-Type: \(format.contentType)"]
    let headers = (try? JSONDecoder().decode([String: String].self, from: Data(settings.headers))) ?? [:]
    for (name, value) in headers.sorted(by: { $0.key < $1.key }) {
      if let problem = HTTPHeader.problem(name: name, value: value) { problems.append(problem) }
      lines.append("\(name): \(value)")
    }
    let access = EndpointAccess(settings, keyring: keyring, egress: egress)
    signers = access.signers
    clientIdentity = access.clientIdentity
    oauth2 = access.oauth2
    if let authorization = access.authorization { lines.append(authorization) }
    headerLines = lines
    lastingProblem =
      access.problems.first.map { Problem(words: $0, isAttempt: false) }
      ?? problems.first.map { Problem(words: $0, isAttempt: true) }
  }
}

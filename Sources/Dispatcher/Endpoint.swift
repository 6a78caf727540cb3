import DeliveryCore
import Foundation
import HTTPDelivery
import OutboxStore
import WebhookSignature

/// An endpoint as delivery uses it: its settings, made ready once for every request to come.
final class Endpoint: Sendable {
  let id: Int64
  let version: Int64
  let url: String
  let isEnabled: Bool
  let isOrdered: Bool
  let format: BodyFormat
  let timeout: Duration
  let maxInFlight: Int
  let rateLimit: Double?
  let policy: RetryPolicy
  let signer: WebhookSigner
  /// `Name: value`, the same in every request.
  let headerLines: [String]
  /// Why nothing can be sent to it, in words; nil if it can.
  let problem: String?
  let learnedAt: Duration

  init(_ settings: EndpointSettings, egress: EgressPolicy, learnedAt: Duration) {
    self.learnedAt = learnedAt
    id = settings.id
    version = settings.version
    url = settings.url
    isEnabled = settings.state == "enabled"
    isOrdered = settings.ordered
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
    var keys: [SigningKey] = []
    for secret in settings.secrets {
      do {
        keys.append(try SigningKey(parsing: secret))
      } catch {
        problems.append("a secret is not usable: \(error)")
      }
    }
    if settings.secrets.isEmpty { problems.append("it has no valid secret; outbox.rotate_secret makes one") }
    signer = WebhookSigner(keys: keys)
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
    headerLines = lines
    problem = problems.first
  }
}

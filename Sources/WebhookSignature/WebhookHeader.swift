/// The names of the three headers. Standard Webhooks 1.0.0, "Webhook headers (sending metadata to consumers)".
public enum WebhookHeader {
  /// The unique id of the webhook, the same over all attempts.
  public static let id = "webhook-id"
  /// When this attempt was made, in whole seconds since 1970-01-01 UTC.
  public static let timestamp = "webhook-timestamp"
  /// Space-separated signatures, each `version,base64`.
  public static let signature = "webhook-signature"
}

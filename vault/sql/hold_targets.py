"""
What a hold covers, as a condition of SQL: the one place that says so.

Two words stand where a customer's id stands, and are none: a restore writes them. A hold of which
nobody knows what it covers has `EVERY_CUSTOMER`, and keeps all of its region. An order of which
nobody knows whose it is has `UNKNOWN_CUSTOMER`, and every hold on a customer of its region keeps
it.
"""

from vault.domain.holds import EVERY_CUSTOMER
from vault.domain.orders import UNKNOWN_CUSTOMER


def covering_order(order: str, region: str, customer: str) -> str:
    """Return the condition that a living target `t` covers an order, named by its columns."""
    return f"""(not t.released and (t.order_id = {order} or (t.region = {region} and (
        t.customer = any(array[{customer}, '{EVERY_CUSTOMER}'])
        or ({customer} = '{UNKNOWN_CUSTOMER}' and t.customer is not null)))))"""


def covering_document(document: str, order: str, region: str, customer: str) -> str:
    """Return the condition that it covers a document of an order."""
    whole = covering_order(order, region, customer)
    return f"((not t.released and t.document = {document}) or {whole})"


def of_customers(customer: str, customers: str) -> str:
    """Return the condition that a hold on one of some customers covers this customer's orders."""
    return f"""({customer} = any({customers}) or {customer} = '{UNKNOWN_CUSTOMER}'
        or '{EVERY_CUSTOMER}' = any({customers}))"""

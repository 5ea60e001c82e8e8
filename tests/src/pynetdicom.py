"""Queries and retrieves with pynetdicom, once each, and says in JSON what came of it.

usage: pynetdicom.py PORT CALLING STUDY-INSTANCE-UID
"""

import hashlib
import json
import sys

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, build_role, evt
from pynetdicom.sop_class import (
    SecondaryCaptureImageStorage,
    StudyRootQueryRetrieveInformationModelFind as FIND,
    StudyRootQueryRetrieveInformationModelGet as GET,
    StudyRootQueryRetrieveInformationModelMove as MOVE,
)

port, calling, study = int(sys.argv[1]), sys.argv[2], sys.argv[3]
stored = {}


def store(event):
    # As it came, and not as it is read and written again.
    data_set = event.request.DataSet.getvalue()
    stored[event.request.AffectedSOPInstanceUID] = hashlib.sha256(data_set).hexdigest()
    return 0x0000


def identifier(level, **keys):
    asked = Dataset()
    asked.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(asked, keyword, value)
    return asked


def last(responses):
    *_, (status, _) = responses
    return {
        "status": status.Status,
        "completed": status.get("NumberOfCompletedSuboperations"),
        "failed": status.get("NumberOfFailedSuboperations"),
        "warning": status.get("NumberOfWarningSuboperations"),
    }


ae = AE(ae_title=calling)
for model in (FIND, GET, MOVE):
    ae.add_requested_context(model)
ae.add_requested_context(SecondaryCaptureImageStorage, ExplicitVRLittleEndian)
association = ae.associate(
    "127.0.0.1",
    port,
    ae_title="GANTRY",
    ext_neg=[build_role(SecondaryCaptureImageStorage, scp_role=True)],
    evt_handlers=[(evt.EVT_C_STORE, store)],
)
assert association.is_established, "the node does not accept"

keys = identifier("STUDY", StudyInstanceUID="", PatientID="", NumberOfStudyRelatedInstances="")
answers = list(association.send_c_find(keys, FIND))
found = {
    answer.StudyInstanceUID: [answer.PatientID, int(answer.NumberOfStudyRelatedInstances)]
    for status, answer in answers
    if status.Status == 0xFF00
}
keys = identifier("STUDY", StudyInstanceUID=study)
got = last(association.send_c_get(keys, GET))
moved = last(association.send_c_move(keys, calling, MOVE))
association.release()
json.dump(
    {
        "found": found,
        "find": answers[-1][0].Status,
        "get": got,
        "stored": stored,
        "move": moved,
    },
    sys.stdout,
)

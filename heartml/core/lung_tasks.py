"""The published tasks about lungs, coughs and breath; what a task is, `heartml.core.task_definition` says."""

from dataclasses import replace

from heartml.core.task_definition import OFFICIAL, Task

_SOUNDS = ("normal", "crackle", "wheeze", "crackle and wheeze")
_DISEASES = ("COPD", "Healthy", "URTI", "Bronchiectasis", "Bronchiolitis", "Pneumonia", "LRTI", "Asthma")

LUNG_TASKS: tuple[Task, ...] = tuple(replace(task, organ="lung") for task in (
    Task("copd", "copd", ("COPD", "Healthy"), "patient", "uar", OFFICIAL, None, "COPD"),
    # What any breath of a recording has. The benchmark's unit is the breath; those stay in the annotations.
    Task("breath_sounds", "breath_sounds", _SOUNDS, "recording", "icbhi_score", OFFICIAL),
    Task("lung_disease", "lung_disease", _DISEASES, "patient", "uar", OFFICIAL, rare="left out"),
    # Continuous and discontinuous adventitious sounds, as SPRSound calls wheezes and the like, and crackles.
    Task("adventitious", "adventitious", ("Normal", "CAS", "DAS", "CAS & DAS", "Poor Quality"), "recording",
         "icbhi_score", OFFICIAL),
    Task("obstructive", "obstructive", ("Obstructive", "Healthy"), "patient", "uar", OFFICIAL, None, "Obstructive"),
    Task("smoker", "smoker", ("Smoker", "Non-smoker"), "recording", "uar", OFFICIAL, None, "Smoker"),
    Task("sex", "sex", ("Female", "Male"), "recording", "uar", OFFICIAL),
    Task("covid", "covid", ("COVID-19", "Healthy"), "recording", "uar", OFFICIAL, None, "COVID-19"),
    Task("lung_sounds", "lung_sound", ("Normal", "Wheezing", "Fine Crackles", "Coarse Crackles", "Rhonchi",
                                       "Pleural Rub"), "recording", "uar", OFFICIAL),
))
